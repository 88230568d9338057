"""In which rows a step consists, and how they become tensors; the same steps whatever the number of processes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import RandomSampler, Sampler
from transformers import DataCollatorForSeq2Seq
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from idlora.data import TokenizedSet


def sampler(tokenized: TokenizedSet, *, batch_size: int, seed: int, by_length: bool) -> Sampler[int]:
    """The order of the rows of every epoch: shuffled anew, and cut to whole steps of `batch_size` rows.

    The rows left over differ from epoch to epoch. Kept, they would make a step that several processes cannot share
    evenly. A set smaller than a step is one step.
    """
    whole = len(tokenized) - len(tokenized) % batch_size or len(tokenized)
    if not by_length:
        return RandomSampler(tokenized.rows, num_samples=whole)
    lengths = [len(row["input_ids"]) for row in tokenized.rows]
    return LikeLengthsTogether(lengths, batch_size=batch_size, whole=whole, seed=seed)


class LikeLengthsTogether(Sampler[int]):
    """Shuffled rows, those of each step sorted by length, the longest first.

    The micro-batches cut from a step then hold rows of like length and little padding, and so do those that several
    processes work on at the same time. Which rows a step consists of is left to chance, as without sorting.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, whole: int, seed: int):
        self.lengths, self.batch_size, self.whole, self.seed, self.epoch = lengths, batch_size, whole, seed, 0

    def __len__(self) -> int:
        return self.whole

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        shuffled = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=shuffled)[: self.whole].tolist()
        for start in range(0, self.whole, self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda row: -self.lengths[row])


class Collator(DataCollatorForSeq2Seq):
    """Rows to (batch, length) int64 tensors, padded on the right: input_ids, labels, and attention_mask.

    Packed rows, which have position_ids, get those in place of the mask: transformers keeps the examples of a row
    apart where positions begin anew, and only where it is given no mask. Padding after them is an example by itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        super().__init__(tokenizer, pad_to_multiple_of=8 if torch.cuda.is_available() else None)

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> Any:
        positions = [row["position_ids"] for row in features if "position_ids" in row]
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in features]
        batch = super().__call__(rows, return_tensors)
        if positions:
            del batch["attention_mask"]
            width = batch["input_ids"].shape[1]
            batch["position_ids"] = torch.tensor([[*row, *range(width - len(row))] for row in positions])
        return batch
