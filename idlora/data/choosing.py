"""The deterministic ways to cut a set of rows: by the hash of their ids, whatever their order and the seed of a run."""

import hashlib


def holdout(rows: list[dict], count: int, *, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Splits `count` rows off a training set: (the rest, the held-out rows), both in the rows' order.

    A row is chosen by the hash of its id, so the choice is spread over the whole set, does not depend on the order of
    the rows, and does not move when the training seed does.

    Raises:
        ValueError: count is negative or leaves nothing to train on.
    """
    if not 0 <= count < max(len(rows), 1):
        raise ValueError(f"Cannot hold out {count} of {len(rows)} rows: ask for 0 to {max(len(rows) - 1, 0)}.")
    held = _choose(rows, count, f"holdout-{seed}")
    return [row for row in rows if row["id"] not in held], [row for row in rows if row["id"] in held]


def limit(rows: list[dict], count: int | None, *, seed: int = 0) -> list[dict]:
    """`count` of the rows in their order, chosen by the hash of their ids; all of them for None or a larger count.

    Not the first ones: a mixture such as saferpaca keeps its parts one after the other.

    Raises:
        ValueError: count is below 1.
    """
    if count is None or count >= len(rows):
        return list(rows)
    if count < 1:
        raise ValueError(f"Cannot limit a data set to {count} rows: ask for 1 or more, or null for all of them.")
    kept = _choose(rows, count, f"limit-{seed}")
    return [row for row in rows if row["id"] in kept]


def _choose(rows: list[dict], count: int, salt: str) -> set[str]:
    ranked = sorted((row["id"] for row in rows), key=lambda id: hashlib.sha256(f"{salt}/{id}".encode()).digest())
    return set(ranked[:count])
