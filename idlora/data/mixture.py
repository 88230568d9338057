"""The rows of a training set that may be trained on, and a training set made of several others, each by its share."""

from collections.abc import Mapping
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from idlora.data.examples import Example, asked, to_examples
from idlora.data.sources import load_rows
from idlora.data.splits import is_held_out, lowest
from idlora.data.templates import ALPACA, Template


def load_training(
    name: str,
    *,
    root: Path | str | None,
    revisions: Mapping[str, str] | None = None,
    share: float = 1.0,
    held_out: float = 0.0,
) -> list[dict]:
    """Rows of a training set, without those held out.

    Of n rows and share p, round(p·n) are kept, those whose prompts fall lowest (`idlora.data.splits`): spread over the
    set, the same whatever the order of the rows and the training seed, and as far as may be from those held out.

    Args:
        name: of a training set.
        root: folder with the data sets, in the layout of `idlora.data.sources`; None reads the hub.
        revisions: of the hub's data sets, see `load_rows`.
        share: 0 < p ≤ 1.
        held_out: share of the rows that is kept out of every training.

    Raises:
        DataError: see `load_rows`.
        ValueError: shares that keep nothing.
    """
    prompt = partial(asked, name)
    rows = load_rows(name, "train", root=root, revisions=revisions)
    free = [row for row in rows if not is_held_out(prompt(row), held_out)]
    kept = lowest(free, round(share * len(rows)), prompt)
    if not kept:
        raise ValueError(f"A share of {share:g} keeps 0 of the {len(rows)} rows of {name}, {held_out:g} held out.")
    return kept


def load_mixture(
    parts: Mapping[str, float],
    *,
    root: Path | str | None,
    revisions: Mapping[str, str] | None = None,
    held_out: float = 0.0,
) -> list[dict]:
    """Training rows of the parts, one part after the other, each with its own columns, "part" and "id".

    An id is `"<part>/<the row's own id>"`. Which rows a part gives does not depend on the other parts.

    Args:
        parts: names of training sets, each with its share.
        root, revisions, held_out: see `load_training`.

    Raises:
        DataError, ValueError: see `load_training`.

    Leaves out weights above 1 (a row repeated) and shuffling, which is the trainer's.
    """
    return [
        row | {"id": f"{part}/{row['id']}", "part": part}
        for part, share in parts.items()
        for row in load_training(part, root=root, revisions=revisions, share=share, held_out=held_out)
    ]


def mixture_examples(rows: list[dict], *, template: Template = ALPACA) -> list[Example]:
    """Prompt and response of rows from `load_mixture`, in order, each as `to_examples` makes them for its part.

    Raises:
        DataError, ValueError: see `to_examples`.
    """
    parts = groupby(rows, itemgetter("part"))
    return [each for part, group in parts for each in to_examples(part, list(group), template=template)]
