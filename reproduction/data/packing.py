"""Several examples in one row, each blind to the others.

    input_ids    = [example] [example] …          at most max_length in all
    labels       = theirs, the first of each masked: it would be predicted from the example before
    position_ids = [0 1 2 …] [0 1 2 …] …          where they start anew, attention does

A model sees the restarts only without an attention mask and without a KV cache (`use_cache=False`); with either it
attends across the examples without a warning.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from reproduction.data.tokenization import IGNORED, TokenizedSet


def pack(tokenized: TokenizedSet, max_length: int) -> TokenizedSet:
    """The examples of a set in rows of at most `max_length` tokens, placed whole and in their order by `best_fit`.

    Raises ValueError where the set is packed already, or an example is longer than a row.
    """
    if tokenized.row_length is not None:
        raise ValueError("This set is packed already: pack the examples as they were tokenized.")
    lengths = [len(row["input_ids"]) for row in tokenized.rows]
    for example, length in zip(tokenized.ids, lengths, strict=True):
        if length > max_length:
            raise ValueError(f"Example {example} has {length} tokens, and a row takes {max_length}.")
    packs = best_fit(lengths, max_length)
    return replace(
        tokenized,
        rows=[joined([tokenized.rows[index] for index in held]) for held in packs],
        ids=[tokenized.ids[index] for held in packs for index in held],
        row_length=max_length,
    )


def best_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Which lengths, by their index, go into which row of at most `width`.

    Taken in their order, each goes into the row with the least room that still holds it, or begins a new one; of rows
    with equal room into the earliest. None is longer than `width`.
    """
    packs: list[list[int]] = []
    with_room: dict[int, deque[int]] = defaultdict(deque)
    rooms = 0  # bit n is set where a pack has room for exactly n tokens more: the least that fits is one shift away
    for index, length in enumerate(lengths):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = with_room[room].popleft()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, chosen = width, len(packs)
            packs.append([])
        packs[chosen].append(index)
        with_room[room - length].append(chosen)
        rooms |= 1 << (room - length)
    return packs


def joined(rows: list[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Examples as one packed row."""
    return {
        "input_ids": [token for row in rows for token in row["input_ids"]],
        "labels": [label for row in rows for label in (IGNORED, *row["labels"][1:])],
        "position_ids": [position for row in rows for position in range(len(row["input_ids"]))],
    }
