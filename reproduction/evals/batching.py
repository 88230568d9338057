"""What decoding and likelihoods share: token ids, the model's mode and context, left padding, forward passes."""

import contextlib
import time
from collections.abc import Iterator, Sequence

import torch

from reproduction.data.tokenization import encode_prompts
from reproduction.evals.items import Prompt

PREFILL_TOKENS = 32_768
"""Most tokens, with padding, of one forward pass on a GPU: an 8B model's widest activations take 0.9 GB."""

SPECIAL = 8
"""Tokens at most that a tokenizer adds to a text, with room to spare."""

CHUNK = 1024
"""Texts encoded at once: a benchmark's worked examples come to tens of millions of tokens."""

Batch = tuple[list[Prompt], list[int]]
"""Prompts, and the numbers of the samples that are asked of each of them."""


@contextlib.contextmanager
def evaluating(model) -> Iterator[None]:
    """The model in evaluation mode, and afterwards in the mode it came in.

    Attention is without cuDNN's kernels meanwhile: they are planned anew for every size, and here each batch has its
    own, with a plan that takes longer than its pass.
    """
    was_training, planned = model.training, torch.backends.cuda.cudnn_sdp_enabled()
    model.eval()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(planned)
        model.train(was_training)


def context_of(model) -> int | None:
    """Most tokens that the model attends to, or None where its config does not say."""
    return getattr(model.config, "max_position_embeddings", None)


def encode(tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """Token ids of each text as training encodes prompts; few are in memory at a time."""
    for start in range(0, len(texts), CHUNK):
        yield from encode_prompts(tokenizer, list(texts[start : start + CHUNK]))


def fits(model, tokenizer, prompts: Sequence[Prompt], *, new_tokens: int) -> list[bool]:
    """Whether each prompt leaves room for as many new tokens in the model's context."""
    context = context_of(model)
    if not context:
        return [True] * len(prompts)
    # No token is shorter than a character of ASCII: most prompts need not be tokenized for it.
    short = [p.text.isascii() and len(p.text) + SPECIAL + new_tokens <= context for p in prompts]
    others = encode(tokenizer, [prompt.text for prompt, fit in zip(prompts, short, strict=True) if not fit])
    return [fit or len(next(others)) + new_tokens <= context for fit in short]


def left_padded(sequences: Sequence[Sequence[int]], device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions, each (B, L) int64: every sequence ends in the last column."""
    width = max(map(len, sequences))
    ids = torch.tensor([[0] * (width - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def passes(sequences: Sequence[Sequence[int]], device, *, most: int | None = None) -> Iterator[Sequence[Sequence[int]]]:
    """Sequences to send through the model together: all of them, or ``most``, and on a GPU as many as `PREFILL_TOKENS`
    allows.
    """
    width = max(map(len, sequences))
    together = max(1, PREFILL_TOKENS // width) if device.type == "cuda" else len(sequences)
    together = min(together, most or together)
    for start in range(0, len(sequences), together):
        yield sequences[start : start + together]


def seconds(device) -> float:
    """A clock's reading after everything that the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
