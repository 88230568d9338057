"""What asking a model has in common: tokens, the model's mode and context, batches that the memory holds, passes.

Batch sizes are counted from the whole memory of the visible GPUs and the model's own size, not from what is free at the
moment: several processes that share an evaluation must cut it into the same batches.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from reproduction.data.tokenization import encode_prompts
from reproduction.evals.items import Prompt

CPU_ROWS, MOST_ROWS = 200, 2048  # on a CPU, and on a GPU: more rows take longer in proportion
PREFILL_TOKENS = 32_768  # of one forward pass on a GPU, with padding: an 8B model's widest activations take 0.9 GB
KEPT_SHARE = 0.7  # of the memory beside the weights, for keys, values and logits; the rest is for reading prompts
LOGIT_BYTES = 24  # of a token of the vocabulary, in a step: logits, probabilities, and running sums in float64
SPECIAL = 8  # most tokens that a tokenizer adds to a text, with room to spare
CHUNK = 1024  # texts encoded at once: a benchmark's worked examples come to tens of millions of tokens

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


def longest_first(prompts: Sequence[Prompt], length: Callable[[Prompt], int]) -> list[Prompt]:
    """By length, of equals by id: the order does not depend on that of the rows."""
    return sorted(prompts, key=lambda prompt: (-length(prompt), prompt.item_id))


def in_batches(prompts: Sequence[Prompt], size: int) -> list[Batch]:
    """Batches of one sample each."""
    return [(list(prompts[start : start + size]), [0]) for start in range(0, len(prompts), size)]


def left_padded(sequences: Sequence[Sequence[int]], device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions, each (B, L) int64: every sequence ends in the last column."""
    width = max(map(len, sequences))
    ids = torch.tensor([[0] * (width - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def passes(sequences: Sequence[Sequence[int]], device, *, most: int | None = None) -> Iterator[Sequence[Sequence[int]]]:
    """Sequences of one forward pass each: all, or ``most``, and on a GPU as many as `PREFILL_TOKENS` allows."""
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


def cost(
    *, prompt_tokens: int, prefill_seconds: float, generated_tokens: int = 0, decode_seconds: float = 0.0
) -> dict[str, Any]:
    """What a batch took: tokens read and decoded, seconds of each, and the most memory of the process on a GPU."""
    return {
        "prompt_tokens": prompt_tokens,
        "generated_tokens": generated_tokens,
        "prefill_seconds": round(prefill_seconds, 4),
        "decode_seconds": round(decode_seconds, 4),
        "gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
    }


def key_value_bytes(model) -> int:
    """Of one token's keys and values, in all layers."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize


def answers_side_by_side(model, *, length: int) -> int:
    """Answers that end within ``length`` tokens, prompt included, to be decoded together."""
    if model.device.type != "cuda":
        return CPU_ROWS
    each = key_value_bytes(model) * length + LOGIT_BYTES * model.config.vocab_size
    return max(1, min(MOST_ROWS, int(KEPT_SHARE * _beside_weights(model)) // each))


def texts_side_by_side(model) -> int:
    """Texts of one batch where nothing is decoded; how many of them one pass takes follows from their length."""
    return MOST_ROWS if model.device.type == "cuda" else CPU_ROWS


def logits_at_once(model) -> int:
    """Logits that one forward pass may give for a loss: with their float32 copies a tenth of a GPU's memory.

    On a CPU half a gigabyte of each copy: more at once are no faster there.
    """
    if model.device.type != "cuda":
        return 2**27
    return max(1, int(0.1 * _beside_weights(model)) // (model.dtype.itemsize + 3 * 4))


def shared_rows(model, *, length: int) -> int:
    """Copies of keys and values of ``length`` tokens that one forward pass may have: a tenth of the memory."""
    return max(1, int(0.1 * _beside_weights(model)) // (key_value_bytes(model) * length))


def _beside_weights(model) -> int:
    """Bytes of the smallest visible GPU, within the cap on this process, that the model leaves.

    On a CPU, of as large a GPU as the paper's.
    """
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    count = torch.cuda.device_count() if model.device.type == "cuda" else 0
    memory = min((torch.cuda.get_device_properties(n).total_memory for n in range(count)), default=80 * 10**9)
    allowed = torch.cuda.get_per_process_memory_fraction() if count else 1.0
    return max(0, int(allowed * memory) - weights)
