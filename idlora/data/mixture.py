"""A training set made of several others, each by its own share."""

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from idlora.data.choosing import limit
from idlora.data.examples import Example, to_examples
from idlora.data.sources import load_rows
from idlora.data.templates import ALPACA, Template


def load_mixture(
    parts: Mapping[str, float],
    *,
    root: Path | str | None,
    revisions: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[dict]:
    """Training rows of the parts, one part after the other, each with its own columns, "part" and "id".

    An id is `"<part>/<the row's own id>"`. Of a part with n rows and share p, round(p·n) are kept, chosen by the hash
    of their own ids as `limit` does: spread over the part, and the same whatever the order of the rows, the other
    parts and the training seed.

    Args:
        parts: names of training sets, each with its share, 0 < p ≤ 1.
        root: folder with all of them, in the layout of `idlora.data.sources`; None reads the hub.
        revisions: of the hub's data sets, see `load_rows`.

    Raises:
        DataError: see `load_rows`.
        ValueError: a share so small that it keeps nothing of its part.

    Leaves out weights above 1 (a row repeated) and shuffling, which is the trainer's.
    """
    rows = []
    for part, share in parts.items():
        own = load_rows(part, "train", root=root, revisions=revisions)
        kept = limit(own, round(share * len(own)), seed=seed)
        rows += [row | {"id": f"{part}/{row['id']}", "part": part} for row in kept]
    return rows


def mixture_examples(rows: list[dict], *, template: Template = ALPACA) -> list[Example]:
    """Prompt and response of rows from `load_mixture`, in order, each as `to_examples` makes them for its part.

    Raises:
        DataError, ValueError: see `to_examples`.
    """
    parts = groupby(rows, itemgetter("part"))
    return [each for part, group in parts for each in to_examples(part, list(group), template=template)]
