"""How much of an evaluation goes through a model side by side: as much as its device's memory holds.

Counted from the whole memory of the visible GPUs and the model's own size, not from what is free at the moment: several
processes that share an evaluation must cut it into the same batches.
"""

import torch

CPU_ROWS = 200
"""On a CPU more rows take longer in proportion."""

MOST_ROWS = 2048
"""On a GPU a step of more rows takes longer in proportion, too."""

KEPT_SHARE = 0.7
"""Of the memory beside the weights, for keys, values and logits. The rest is for reading prompts and the allocator."""

LOGIT_BYTES = 24
"""Of a token of the vocabulary, in a step: logits, probabilities, and running sums of them in float64."""


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
    """Logits that one forward pass may give for a loss: with their float32 copies a tenth of the memory.

    On a CPU a fixed number, half a gigabyte of each copy: more at once are no faster there.
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
