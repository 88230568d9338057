"""Deterministic splits by hash, independent of the order of the rows and the seed of a run.

    [0 ……………………… 1 - share) [1 - share … 1)      a hash maps a row's prompt to [0, 1)
        training rows              held out

Whether a row is held out depends only on its prompt: it is the same in every copy of the data and in mixtures, and
equal prompts stay together. The validation rows for learning rates are split off the rest by another hash.
"""

import hashlib
from collections.abc import Callable, Sequence

Instruction = tuple[str, str]
"""Instruction and input ("" for none), see `reproduction.data.examples.instruction_of`."""

HELD_OUT, VALIDATION = "held out", "validation"
"""Salts of the hash; splits with different salts are independent."""


def place(prompt: Instruction, salt: str = HELD_OUT) -> float:
    """Hash a prompt to [0, 1)."""
    text = "\0".join((salt, *prompt)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7]) / 2**56


def is_held_out(prompt: Instruction, share: float) -> bool:
    """Whether rows with this prompt belong to the held-out `share`."""
    return place(prompt) >= 1 - share


def lowest(rows: Sequence[dict], count: int, asks: Callable[[dict], Instruction]) -> list[dict]:
    """Return the `count` rows with the lowest prompt hash (the first among ties), in order."""
    ranked = sorted(range(len(rows)), key=lambda index: place(asks(rows[index])))
    return [rows[index] for index in sorted(ranked[:count])]


def validation(rows: Sequence[dict], count: int, asks: Callable[[dict], Instruction]) -> tuple[list[dict], list[dict]]:
    """Split `count` validation rows off a training set; return (the rest, the validation rows), in order.

    Other rows with a validation row's prompt are dropped from the rest. Raises ValueError for a count that is negative
    or leaves no training rows.
    """
    if not 0 <= count < max(len(rows), 1):
        raise ValueError(f"Cannot set {count} of {len(rows)} rows apart: ask for 0 to {max(len(rows) - 1, 0)}.")
    if not count:
        return list(rows), []
    places = [place(asks(row), VALIDATION) for row in rows]
    chosen = sorted(range(len(rows)), key=places.__getitem__)[:count]
    highest = places[chosen[-1]]
    rest = [row for row, where in zip(rows, places, strict=True) if where > highest]
    if not rest:
        raise ValueError(f"Setting {count} of {len(rows)} rows apart leaves none: too many of them ask the same.")
    return rest, [rows[index] for index in sorted(chosen)]


def limit(rows: list[dict], count: int | None) -> list[dict]:
    """Return `count` rows in order, chosen by the hash of their ids; all of them for None or a larger count.

    The first rows would not do: a mixture such as saferpaca stores its parts in sequence. Raises ValueError for a count
    below 1.
    """
    if count is None or count >= len(rows):
        return list(rows)
    if count < 1:
        raise ValueError(f"Cannot limit a data set to {count} rows: ask for 1 or more, or null for all of them.")
    ranked = sorted((row["id"] for row in rows), key=lambda id: hashlib.sha256(f"limit-0/{id}".encode()).digest())
    chosen = set(ranked[:count])
    return [row for row in rows if row["id"] in chosen]
