"""The deterministic ways to cut a set of rows, none of which depends on the order of the rows or the seed of a run.

    [0 ……………………… 1 - share) [1 - share … 1)      where a row's prompt falls in [0, 1), by a hash of its text
        may be trained on          held out

A row is held out by its own prompt alone: it stays so in another copy of the data and in a mixture, and rows with equal
prompts stay together. The rows that learning rates are chosen on are cut from the rest by another hash.
"""

import hashlib
from collections.abc import Callable, Sequence

Instruction = tuple[str, str]
"""Instruction and input ("" where a row has none), as `reproduction.data.examples.instruction_of` gives them."""

HELD_OUT, VALIDATION = "held out", "validation"
"""Salts of the hash: cuts by different salts are independent."""


def place(prompt: Instruction, salt: str = HELD_OUT) -> float:
    """Where a prompt falls in [0, 1): uniformly over prompts, and always alike."""
    text = "\0".join((salt, *prompt)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7]) / 2**56  # 56 bits are exact in a float, and below 1


def is_held_out(prompt: Instruction, share: float) -> bool:
    """Whether rows with this prompt are kept out of training, where a share of them is."""
    return place(prompt) >= 1 - share


def lowest(rows: Sequence[dict], count: int, asks: Callable[[dict], Instruction]) -> list[dict]:
    """The `count` rows whose prompts fall lowest (of equals the first), in the rows' order."""
    ranked = sorted(range(len(rows)), key=lambda index: place(asks(rows[index])))
    return [rows[index] for index in sorted(ranked[:count])]


def validation(rows: Sequence[dict], count: int, asks: Callable[[dict], Instruction]) -> tuple[list[dict], list[dict]]:
    """Splits `count` rows off a training set: (the rest, the rows to choose a learning rate on), in the rows' order.

    The rest lacks further rows that have the prompt of one of them, too. Raises ValueError for a count that is negative
    or leaves nothing to train on.
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
    """`count` of the rows in their order, chosen by the hash of their ids; all of them for None or a larger count.

    Not the first ones: a mixture such as saferpaca keeps its parts one after the other. Raises ValueError for a count
    below 1.
    """
    if count is None or count >= len(rows):
        return list(rows)
    if count < 1:
        raise ValueError(f"Cannot limit a data set to {count} rows: ask for 1 or more, or null for all of them.")
    ranked = sorted((row["id"] for row in rows), key=lambda id: hashlib.sha256(f"limit-0/{id}".encode()).digest())
    chosen = set(ranked[:count])
    return [row for row in rows if row["id"] in chosen]
