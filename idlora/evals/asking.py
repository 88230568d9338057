"""What decoding and likelihoods share: asking in batches, the model's mode, its context, left padding."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from idlora.evals.answers import COST, Share, ShareAnswered, open_log
from idlora.evals.items import Prompt
from idlora.records import ItemLog

CHUNK = 1024
"""Texts encoded at once: a benchmark's worked examples come to tens of millions of tokens."""

PREFILL_TOKENS = 32_768
"""Most tokens, with padding, of one forward pass on a GPU: an 8B model's widest activations take 0.9 GB."""

Batch = Sequence[tuple[Prompt, int]]
"""Prompts, each with the number of the sample that is asked for."""


def ask_in_batches(
    model,
    prompts: Sequence[Prompt],
    batches: Sequence[Batch],
    *,
    answer: Callable[[int], tuple[Sequence[dict], dict]],
    path: Path,
    share: Share | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ItemLog:
    """The answers to all batches: those on disk, and those of `answer`, recorded batch by batch, each as a whole.

    Args:
        model: put in evaluation mode, and afterwards in the mode that it came in.
        answer: gives the records of a batch, by its number, and what the batch took.
        path: the answers file.
        share: the part of the missing batches that is answered here; None is all of them.
        progress: called with (answers done, answers in all), of this share.

    Raises:
        ValueError: see `open_log`; or something is missing and the model, on the meta device, has no weights.
        ShareAnswered: at the end of a share.
    """
    log = open_log(path, prompts)
    keys = [[(prompt.item_id, sample) for prompt, sample in batch] for batch in batches]
    waiting = [number for number, some in enumerate(keys) if any(key not in log for key in some)]
    total = sum(map(len, keys))
    mine = log
    if share is not None:
        mine = ItemLog(share.file(path))
        waiting = waiting[share.index :: share.of]
        total = len(mine) + sum(key not in log and key not in mine for number in waiting for key in keys[number])
    if waiting and model.device.type == "meta":
        raise ValueError(f"{len(waiting)} batches of answers are missing in {path.parent}: run the same command again")
    with evaluating(model):
        for number in waiting:
            missing = [key not in log and key not in mine for key in keys[number]]
            if any(missing):
                records, cost = answer(number)
                records = [each for each, wanted in zip(records, missing, strict=True) if wanted]
                records[0] |= {COST: cost}
                mine.append(records)
            if progress:
                progress(len(mine), total)
    if share is not None:
        raise ShareAnswered
    return log


@contextlib.contextmanager
def evaluating(model) -> Iterator[None]:
    """The model in evaluation mode, and afterwards in the mode it came in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def context_of(model) -> int | None:
    """Most tokens that the model attends to, or None where its config does not say."""
    return getattr(model.config, "max_position_embeddings", None)


def encode(tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """Token ids of each text, with the start token if the tokenizer has one; few are in memory at a time."""
    waiting = iter(texts)
    while some := list(islice(waiting, CHUNK)):
        yield from tokenizer(some)["input_ids"]


def fits(model, tokenizer, texts: Sequence[str], *, new_tokens: int) -> list[bool]:
    """Whether each text leaves room for as many new tokens in the model's context."""
    context = context_of(model)
    return [not context or len(ids) + new_tokens <= context for ids in encode(tokenizer, texts)]


def left_padded(sequences: Sequence[Sequence[int]], device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions, each (B, L) int64: every sequence ends in the last column."""
    width = max(map(len, sequences))
    ids = torch.tensor([[0] * (width - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def passes(sequences: Sequence[Sequence[int]], device) -> Iterator[Sequence[Sequence[int]]]:
    """Sequences to send through the model together: all of them, and on a GPU as many as `PREFILL_TOKENS` allows."""
    width = max(map(len, sequences))
    together = max(1, PREFILL_TOKENS // width) if device.type == "cuda" else len(sequences)
    for start in range(0, len(sequences), together):
        yield sequences[start : start + together]


def seconds(device) -> float:
    """A clock's reading after everything that the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
