"""Training and held-out rows of a training set, and mixtures of several sets."""

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
    """Return the rows of a training set without held-out ones.

    Args:
        name: name of a training set.
        root, revisions: see `load_rows`.
        share: share of all rows, in (0, 1]: those with the lowest prompt hash (`reproduction.data.splits`).
        held_out: share of the rows that is held out of every training.

    Raises DataError, see `load_rows`, and ValueError for shares that leave no rows.
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
    """Return the held-out `share` of a training set, highest hash first, so that the first n rows are the same for
    every share. Raises DataError, see `load_rows`.
    """
    prompt = partial(instruction_of, name)
    rows = load_rows(name, "train", root=root, revisions=revisions)
    return sorted((row for row in rows if is_held_out(prompt(row), share)), key=lambda row: -place(prompt(row)))


def shares_of(parts: Mapping[str, float], rows: Mapping[str, int]) -> dict[str, float]:
    """Return each part's share of its set, from the parts of a mixture and the sets' numbers of rows.

    Values up to 1 are shares already. If one is above 1, all are proportions, such as 10 to 1, and the mixture is as
    large as the sets allow. Raises ValueError if a set has too few rows.
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
    """Return the training rows of all parts in sequence, each with "part" and "id": "<part>/<the row's own id>".

    ``parts`` maps training sets to shares, or to proportions (see `shares_of`) of the rows that are not held out. Each
    part's rows are those with the lowest prompt hash, independent of the other parts. Raises like `load_training` and
    `shares_of`.
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
