"""What decoding and likelihoods share: the log of what was answered, the model's mode, its context, left padding."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from idlora.evals.items import Prompt
from idlora.records import ItemLog

CHUNK = 1024
"""Texts encoded at once: a benchmark's worked examples come to tens of millions of tokens."""


def open_log(path: Path, prompts: Sequence[Prompt]) -> ItemLog:
    """The answers so far, or none where one of them answers another text: then all are asked again.

    Raises ValueError for no prompts, or an item id twice.
    """
    if not prompts:
        raise ValueError("there is nothing to answer: the benchmark has no rows")
    hashes = {prompt.item_id: prompt.prompt_hash for prompt in prompts}
    if len(hashes) < len(prompts):
        raise ValueError("two rows have the same id: give each row its own")
    log = ItemLog(path)
    if any(hashes.get(answer["item_id"]) != answer["prompt_hash"] for answer in log.records):
        path.unlink()
        log = ItemLog(path)
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
