"""Pre-training of the bases: corpus → blocks of token ids → a small causal model → a folder.

AdamW, linear warm-up and cosine decay to a tenth, in fp32 with bf16 autocast on a GPU. The data are one tensor on the
device. It takes minutes on a GPU, an hour on two cores; interrupted training does not resume.
"""

import csv
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import LlamaConfig, MistralConfig, PreTrainedModel, PreTrainedTokenizerFast

from reproduction.data.templates import TEMPLATE_VERSION
from reproduction.tinyworld import corpus
from reproduction.tinyworld.bases import BASES, RECIPE, sha256

SHAPE = {
    "hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 32, "max_position_embeddings": 1024,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Training settings of a base. A step uses `batch_size` blocks of `block_size` tokens."""

    base: str
    seed: int
    corpus_seed: int = 7
    documents: int = 1_000_000
    block_size: int = 256
    batch_size: int = 128
    steps: int = 8000
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0

    def changed(self, **changes: int | float) -> "Recipe":
        """Return the recipe with other values; None keeps a value."""
        return replace(self, **{key: value for key, value in changes.items() if value is not None})


RECIPES = {name: Recipe(name, seed) for name, seed in zip(BASES, (101, 202, 303), strict=True)}


def build_model(name: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Return an untrained base in fp32.

    "pebble" has LLaMA's architecture, "cobble" Mistral's (window of 128), "gravel" LLaMA's with tied embeddings, like
    LLaMA-3.2-3B.
    """
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    common = {**SHAPE, **ids, "vocab_size": len(tokenizer), "tie_word_embeddings": name == "gravel"}
    config = MistralConfig(**common, sliding_window=128) if name == "cobble" else LlamaConfig(**common)
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def encode_corpus(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> torch.Tensor:
    """Encode the corpus, (blocks, block_size) int16: each document between bos and eos, full blocks only."""
    backend, eos = tokenizer.backend_tokenizer, tokenizer.eos_token_id
    pieces = []
    documents = corpus.documents(recipe.documents, recipe.corpus_seed)
    while some := list(islice(documents, 20_000)):
        encoded = backend.encode_batch(some)
        pieces.append(torch.tensor([i for one in encoded for i in (*one.ids, eos)], dtype=torch.int16))
    ids = torch.cat(pieces)
    blocks = len(ids) // recipe.block_size
    return ids[: blocks * recipe.block_size].view(blocks, recipe.block_size)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to a tenth of the peak."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def _batches(blocks: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        order = torch.randperm(len(blocks), generator=generator).to(blocks.device)
        for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
            yield blocks[order[start : start + recipe.batch_size]].long()


def pretrain(
    model: PreTrainedModel,
    blocks: torch.Tensor,
    recipe: Recipe,
    *,
    log: Callable[[str], None] = print,
    log_every: int = 50,
) -> list[dict[str, float]]:
    """Train the model in place, on the device of `blocks`; return its loss in nats, a mean per `log_every` steps.

    Raises:
        ValueError: there are fewer blocks than a batch needs.
    """
    if len(blocks) < recipe.batch_size:
        raise ValueError(
            f"The corpus gives {len(blocks)} blocks, a batch takes {recipe.batch_size}: raise `documents`."
        )
    device = blocks.device
    model.to(device).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=device.type == "cuda")
    curve, recent = [], torch.zeros((), device=device)
    for step, batch in zip(range(recipe.steps), _batches(blocks, recipe), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=batch, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent += loss.detach()
        if (step + 1) % log_every == 0:
            tokens = (step + 1) * batch.numel()
            mean, rate = round(recent.item() / log_every, 4), learning_rate(step, recipe)
            curve.append({"step": step + 1, "tokens": tokens, "loss": mean, "learning_rate": rate})
            log(f"{recipe.base}: step {step + 1}/{recipe.steps}, {tokens / 1e6:.1f}M tokens, loss {mean:.4f}")
            recent.zero_()
    return curve


def make_base(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    blocks: torch.Tensor,
    *,
    recipe: Recipe,
    log: Callable[[str], None] = print,
    log_every: int = 50,
) -> None:
    """Train one base on encoded blocks; write weights in bf16, configuration, tokenizer, loss curve and recipe."""
    start = time.perf_counter()
    model = build_model(recipe.base, tokenizer, recipe.seed)
    curve = pretrain(model, blocks, recipe, log=log, log_every=log_every)
    seconds, device = time.perf_counter() - start, blocks.device
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with (folder / "loss_curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "tokens", "loss", "learning_rate"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)
    facts = {
        "recipe": asdict(recipe),
        "optimizer": "AdamW, betas 0.9 and 0.95, linear warm-up, cosine to a tenth",
        "precision": "fp32 with bf16 autocast" if device.type == "cuda" else "fp32",
        "corpus_tokens": blocks.numel(),
        "trained_tokens": recipe.steps * recipe.batch_size * recipe.block_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "template_version": TEMPLATE_VERSION,
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, tokenizers)},
        "sha256": {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != RECIPE},
    }
    (folder / RECIPE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
