"""Order of the rows, collation and packing. The steps are the same for any number of processes."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import RandomSampler, Sampler
from transformers import DataCollatorForSeq2Seq
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reproduction.data import TokenizedSet
from reproduction.data.packing import best_fit, joined
from reproduction.data.tokenization import IGNORED


def sampler(tokenized: TokenizedSet, *, batch_size: int, seed: int, by_length: bool) -> Sampler[int]:
    """Return a sampler that shuffles the rows in every epoch and drops those beyond whole steps of `batch_size` rows.

    The dropped rows differ from epoch to epoch. A set smaller than a step is one step.
    """
    whole = len(tokenized) - len(tokenized) % batch_size or len(tokenized)
    if not by_length:
        return RandomSampler(tokenized.rows, num_samples=whole)
    lengths = [len(row["input_ids"]) for row in tokenized.rows]
    return LengthGroupedSampler(lengths, batch_size=batch_size, whole=whole, seed=seed)


class LengthGroupedSampler(Sampler[int]):
    """Sampler of shuffled rows; within each step they are sorted by length, the longest first.

    This reduces padding in the micro-batches of a step and in simultaneous ones of several processes. The rows of a
    step are random, as without sorting.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, whole: int, seed: int):
        self.lengths, self.batch_size, self.whole, self.seed, self.epoch = lengths, batch_size, whole, seed, 0

    def __len__(self) -> int:
        return self.whole

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)[: self.whole].tolist()
        for start in range(0, self.whole, self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda row: -self.lengths[row])


class Collator(DataCollatorForSeq2Seq):
    """Collate rows to (batch, length) int64 tensors, padded on the right: input_ids, labels and attention_mask.

    Packed rows have position_ids instead of the mask: only without a mask does transformers separate the examples of a
    row, at restarts of the positions. Each token of padding is its own example. With a `width`, rows of one example are
    packed into rows of `width` tokens, the longest first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, width: int | None = None):
        super().__init__(tokenizer, pad_to_multiple_of=8 if torch.cuda.is_available() else None)
        self.width = width

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> Any:
        if "position_ids" in features[0]:
            return self._pad_packed(features)
        if self.width is not None:
            features = sorted(features, key=lambda row: -len(row["input_ids"]))
            packs = best_fit([len(row["input_ids"]) for row in features], self.width)
            return self._pad_packed([joined([features[index] for index in pack]) for pack in packs])
        return super().__call__([{name: row[name] for name in ("input_ids", "labels")} for row in features])

    def _pad_packed(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = self.width or _round_up(max(len(row["input_ids"]) for row in rows), self.pad_to_multiple_of or 1)
        padding = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED, "position_ids": 0}
        return {
            name: torch.tensor([[*row[name], *[value] * (width - len(row[name]))] for row in rows])
            for name, value in padding.items()
        }


@dataclass(frozen=True)
class Packing:
    """Layout of a set's examples in the rows of packed passes.

    Args:
        lengths: tokens of each example; None for a set that is already packed.
        width: tokens of a row, a multiple of 16 (for others Triton compiles its kernels again).
        batch_size: examples of a step.
        by_length: whether a step's longest examples go to its first pass.
    """

    lengths: tuple[int, ...] | None
    width: int
    batch_size: int
    by_length: bool

    @classmethod
    def of(cls, tokenized: TokenizedSet, *, batch_size: int, by_length: bool) -> "Packing":
        lengths = tuple(len(row["input_ids"]) for row in tokenized.rows)
        width = _round_up(tokenized.row_length or max(lengths), 16)
        return cls(None if tokenized.row_length else lengths, width, batch_size, by_length)

    def rows(self, examples: int) -> int:
        """Return the rows of a pass of so many examples: the maximum over 64 random steps, or those already packed."""
        if self.lengths is None:
            return examples
        draw, most = random.Random(0), min(self.batch_size if self.by_length else examples, len(self.lengths))
        steps = (sorted(draw.sample(self.lengths, most), reverse=True)[:examples] for _ in range(64))
        return max(len(best_fit(step, self.width)) for step in steps)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
