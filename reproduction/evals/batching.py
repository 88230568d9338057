"""Tokens, context length, batch sizes and forward passes, shared by `generation`, `likelihood` and `loss`.

Batch sizes follow from the total memory of the visible GPUs and the model's size, not from the memory free at the
moment: processes that share an evaluation must split it into the same batches.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from reproduction.data.tokenization import encode_prompts
from reproduction.evals.items import Prompt

CPU_ROWS, MOST_ROWS = 200, 2048  # rows per batch on a CPU, and on a GPU: larger batches are no faster per row
PREFILL_TOKENS = 32_768  # per forward pass on a GPU, with padding: the widest activations of an 8B model take 0.9 GB
KEPT_SHARE = 0.7  # of the memory beside the weights, for keys, values and logits; the rest is for the prefill
LOGIT_BYTES = 24  # per vocabulary entry and step: logits, probabilities, and float64 cumulative sums
SPECIAL = 8  # upper bound on the special tokens that a tokenizer adds to a text
CHUNK = 1024  # texts per tokenizer call: worked examples add up to tens of millions of tokens

Batch = tuple[list[Prompt], list[int]]
"""Prompts, and the sample numbers to answer for each of them."""


@contextlib.contextmanager
def evaluating(model) -> Iterator[None]:
    """Set the model to evaluation mode, and restore its mode afterwards.

    cuDNN attention is off meanwhile: it plans for every new size, and here each batch has its own size.
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
    """Return the model's context length in tokens, or None if its config does not say."""
    return getattr(model.config, "max_position_embeddings", None)


def encode(tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the token ids of each text, encoded like training prompts, `CHUNK` texts at a time."""
    for start in range(0, len(texts), CHUNK):
        yield from encode_prompts(tokenizer, list(texts[start : start + CHUNK]))


def fits(model, tokenizer, prompts: Sequence[Prompt], *, new_tokens: int) -> list[bool]:
    """Return, for each prompt, whether it leaves room for `new_tokens` in the model's context."""
    context = context_of(model)
    if not context:
        return [True] * len(prompts)
    # A token has at least one ASCII character: most prompts need no tokenization here.
    short = [p.text.isascii() and len(p.text) + SPECIAL + new_tokens <= context for p in prompts]
    others = encode(tokenizer, [prompt.text for prompt, fit in zip(prompts, short, strict=True) if not fit])
    return [fit or len(next(others)) + new_tokens <= context for fit in short]


def longest_first(prompts: Sequence[Prompt], length: Callable[[Prompt], int]) -> list[Prompt]:
    """Sort by decreasing length, then by id, so that the order of the rows does not matter."""
    return sorted(prompts, key=lambda prompt: (-length(prompt), prompt.item_id))


def in_batches(prompts: Sequence[Prompt], size: int) -> list[Batch]:
    """Split prompts into batches of `size`, with one sample per prompt."""
    return [(list(prompts[start : start + size]), [0]) for start in range(0, len(prompts), size)]


def left_padded(sequences: Sequence[Sequence[int]], device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return left-padded token ids, attention mask and positions, each (B, L) int64."""
    width = max(map(len, sequences))
    ids = torch.tensor([[0] * (width - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def passes(sequences: Sequence[Sequence[int]], device, *, most: int | None = None) -> Iterator[Sequence[Sequence[int]]]:
    """Split sequences into forward passes of up to ``most`` rows and, on a GPU, `PREFILL_TOKENS` tokens."""
    width = max(map(len, sequences))
    together = max(1, PREFILL_TOKENS // width) if device.type == "cuda" else len(sequences)
    together = min(together, most or together)
    for start in range(0, len(sequences), together):
        yield sequences[start : start + together]


def seconds(device) -> float:
    """Return the time in seconds after all queued work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cost(
    *, prompt_tokens: int, prefill_seconds: float, generated_tokens: int = 0, decode_seconds: float = 0.0
) -> dict[str, Any]:
    """Return the cost of a batch: tokens and seconds of prefill and decoding, and the process's peak GPU memory."""
    return {
        "prompt_tokens": prompt_tokens,
        "generated_tokens": generated_tokens,
        "prefill_seconds": round(prefill_seconds, 4),
        "decode_seconds": round(decode_seconds, 4),
        "gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
    }


def key_value_bytes(model) -> int:
    """Return the bytes of one token's keys and values in all layers."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize


def answers_side_by_side(model, *, length: int) -> int:
    """Return how many answers of up to ``length`` tokens (prompt included) to decode in one batch."""
    if model.device.type != "cuda":
        return CPU_ROWS
    each = key_value_bytes(model) * length + LOGIT_BYTES * model.config.vocab_size
    return max(1, min(MOST_ROWS, int(KEPT_SHARE * _beside_weights(model)) // each))


def texts_side_by_side(model) -> int:
    """Return the batch size if nothing is decoded; `passes` splits a batch by length."""
    return MOST_ROWS if model.device.type == "cuda" else CPU_ROWS


def logits_at_once(model) -> int:
    """Return how many logits one forward pass of a loss may compute: a tenth of a GPU's memory with float32 copies.

    On a CPU half a gigabyte per float32 copy: larger passes are no faster there.
    """
    if model.device.type != "cuda":
        return 2**27
    return max(1, int(0.1 * _beside_weights(model)) // (model.dtype.itemsize + 3 * 4))


def shared_rows(model, *, length: int) -> int:
    """Return how many rows with cached keys and values of ``length`` tokens fit into a tenth of the memory."""
    return max(1, int(0.1 * _beside_weights(model)) // (key_value_bytes(model) * length))


def _beside_weights(model) -> int:
    """Return the bytes that the weights leave on the smallest visible GPU, within this process's memory fraction.

    On a CPU an 80 GB GPU, like the paper's, is assumed.
    """
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    count = torch.cuda.device_count() if model.device.type == "cuda" else 0
    memory = min((torch.cuda.get_device_properties(n).total_memory for n in range(count)), default=80 * 10**9)
    allowed = torch.cuda.get_per_process_memory_fraction() if count else 1.0
    return max(0, int(allowed * memory) - weights)
