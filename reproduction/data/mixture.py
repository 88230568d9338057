"""The rows of a training set that may be trained on, and a training set made of several others, each by its share."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from reproduction.data.examples import instruction_of
from reproduction.data.sources import load_rows
from reproduction.data.splits import is_held_out, lowest, place


def load_training(
    name: str,
    *,
    root: Path | str | None,
    revisions: Mapping[str, str] | None = None,
    share: float = 1.0,
    held_out: float = 0.0,
) -> list[dict]:
    """Rows of a training set, without those held out.

    Args:
        name: of a training set.
        root, revisions: see `load_rows`.
        share: of all rows, in (0, 1]: those whose prompts fall lowest (`reproduction.data.splits`) are taken.
        held_out: share of the rows that is kept out of every training.

    Raises DataError, see `load_rows`, and ValueError for shares that leave nothing.
    """
    prompt = partial(instruction_of, name)
    rows = load_rows(name, "train", root=root, revisions=revisions)
    free = [row for row in rows if not is_held_out(prompt(row), held_out)]
    chosen = lowest(free, round(share * len(rows)), prompt)
    if not chosen:
        raise ValueError(f"A share of {share:g} keeps 0 of the {len(rows)} rows of {name}, {held_out:g} held out.")
    return chosen


def load_held_out(
    name: str, *, root: Path | str | None, revisions: Mapping[str, str] | None = None, share: float
) -> list[dict]:
    """Rows of a training set that are kept out where a share of them is, the highest first, so that the first n rows
    are the same for every share. Raises DataError, see `load_rows`.
    """
    prompt = partial(instruction_of, name)
    rows = load_rows(name, "train", root=root, revisions=revisions)
    return sorted((row for row in rows if is_held_out(prompt(row), share)), key=lambda row: -place(prompt(row)))


def shares_of(parts: Mapping[str, float], rows: Mapping[str, int]) -> dict[str, float]:
    """The share of its rows that each part of a mixture gives, from the number of rows that each part's set has.

    Up to 1 the parts are shares already. With one above 1 they are proportions, such as 10 to 1: each set then gives as
    many rows as all of them allow. Raises ValueError where one of the sets has too few.
    """
    if max(parts.values()) <= 1:
        return dict(parts)
    unit = min(rows[part] // proportion for part, proportion in parts.items())
    if not unit:
        raise ValueError(f"{dict(rows)} rows are too few for the proportions {dict(parts)}: give others, or shares.")
    return {part: unit * proportion / rows[part] for part, proportion in parts.items()}


def load_mixture(
    parts: Mapping[str, float],
    *,
    root: Path | str | None,
    revisions: Mapping[str, str] | None = None,
    held_out: float = 0.0,
) -> list[dict]:
    """Training rows of the parts, one part after the other, each with "part" and "id": "<part>/<the row's own id>".

    ``parts`` has for each training set its share, or its proportion (see `shares_of`) among the rows that are not held
    out. A part gives the rows whose prompts fall lowest, whatever the other parts are. Raises as `load_training` and
    `shares_of` do.
    """
    where = {"root": root, "revisions": revisions, "held_out": held_out}
    if max(parts.values()) <= 1:
        chosen = {part: load_training(part, share=share, **where) for part, share in parts.items()}
    else:
        free = {part: load_training(part, **where) for part in parts}
        shares = shares_of(parts, {part: len(rows) for part, rows in free.items()})
        chosen = {
            part: lowest(free[part], round(shares[part] * len(free[part])), partial(instruction_of, part))
            for part in parts
        }
    return [row | {"id": f"{part}/{row['id']}", "part": part} for part, rows in chosen.items() for row in rows]
