"""Packing of several examples into one row, without attention between them.

    input_ids    = [example] [example] …          at most max_length tokens
    labels       = the examples' labels, each first one masked: it would be predicted from the previous example
    position_ids = [0 1 2 …] [0 1 2 …] …          attention restarts where positions restart

Models honour the restarts only without an attention mask and without a KV cache (`use_cache=False`); otherwise they
silently attend across examples.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from reproduction.data.tokenization import IGNORED, TokenizedSet


def pack(tokenized: TokenizedSet, max_length: int) -> TokenizedSet:
    """Pack whole examples, in order, into rows of at most `max_length` tokens with `best_fit`.

    Raises ValueError if the set is already packed, or an example is longer than a row.
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
    """Return the indices of the lengths in each row of at most `width`, by best-fit bin packing in input order.

    Each length goes into the fullest row that has room for it (the earliest among ties), else into a new row. No length
    may exceed `width`.
    """
    packs: list[list[int]] = []
    with_room: dict[int, deque[int]] = defaultdict(deque)
    rooms = 0  # bit n is set if a pack has room for exactly n more tokens; a shift finds the least that fits
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
    """Join examples into one packed row."""
    return {
        "input_ids": [token for row in rows for token in row["input_ids"]],
        "labels": [label for row in rows for label in (IGNORED, *row["labels"][1:])],
        "position_ids": [position for row in rows for position in range(len(row["input_ids"]))],
    }
