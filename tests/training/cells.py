"""Cells for the training tests, importable by their child processes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from idlora.tuners import REGISTRY
from reproduction.data import Example, TokenizedSet
from reproduction.training import MethodSpec, ModelSpec, Resources, TrainSpec, build_adapted, build_base, train, trainer

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def peft_method(name: str, peft_type: str, *, frozen=(), long_rows=(), **arguments) -> MethodSpec:
    arguments = {"lora_alpha": 8, "lora_dropout": 0.0, "target_modules": TARGETS, **arguments}
    own = {"arguments": arguments, "frozen": frozen, "long_rows": long_rows}
    return MethodSpec(name=name, label=name, kind="peft", peft_type=peft_type, **own)


METHODS = {
    method.name: method
    for method in (
        MethodSpec(name="full", label="full", kind="full"),
        peft_method("lora", "LORA", r=4),
        peft_method("dora", "LORA", r=4, use_dora=True),
        peft_method("lora_fa", "LORA", r=4, frozen=("lora_A",)),
        *(peft_method(name, name.upper(), r=2) for name in sorted(REGISTRY)),
    )
}


SHORT = {"max_steps": None, "epochs": 2, "learning_rate": 0.1}
"""Changes of the schedule: two epochs instead of a number of steps."""


def examples(count: int = 32) -> list[Example]:
    return [Example(str(n), f"{n}+1=", f"{n + 1}." * (1 + n % 3)) for n in range(count)]


def schedule(**changes) -> TrainSpec:
    # Plain gradient descent: Adam's first steps turn rounding errors of near-zero gradients into full steps.
    settings = {
        "learning_rate": 0.5, "epochs": 1, "max_steps": 3, "batch_size": 8, "micro_batch_size": 8,
        "optimizer": "sgd", "lr_scheduler": "constant",
    }  # fmt: skip
    return TrainSpec(**(settings | changes))


def run(
    folder: Path,
    base: ModelSpec,
    method: MethodSpec,
    tokenized: TokenizedSet,
    spec: TrainSpec,
    *,
    on_step=None,
    tracking=None,
) -> tuple[torch.nn.Module, Resources]:
    """Train one cell; return its model and resource figures."""
    model, tokenizer = build_base(base)
    model = build_adapted(model, method, spec.seed)
    resources = train(
        model=model,
        tokenizer=tokenizer,
        tokenized=tokenized,
        spec=spec,
        base=base,
        folder=folder,
        on_step=on_step,
        tracking=tracking,
    )
    return model, resources


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the weights in a finished run's folder."""
    (path,) = [*folder.glob("adapter/*.safetensors"), *folder.glob("model/*.safetensors")]
    return load_file(path)


def furthest(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between two sets of weights with the same names."""
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def log(folder: Path) -> list[dict]:
    """Read the lines of a run's train_log.jsonl."""
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def probe() -> torch.Tensor:
    """Return token ids, (1, 37) int64, for comparing models by their logits."""
    return torch.arange(3, 40)[None]


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=probe()).logits


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """Record the trainings in the context: the rows of each step of this process, and the wrapped model at the end."""
    seen: dict[str, Any] = {"rows": []}
    real = trainer.StepTrainer

    class Watched(real):
        def training_step(self, model, inputs, *arguments, **options):
            steps = seen["rows"]
            steps.extend([] for _ in range(self.state.global_step + 1 - len(steps)))
            for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
                steps[-1].append(row[mask.bool()].tolist())
            return super().training_step(model, inputs, *arguments, **options)

        def train(self, **options):
            result = super().train(**options)
            seen["wrapper"] = type(self.model_wrapped).__name__
            seen["in_parts"] = all(parameter.numel() == 0 for parameter in self.model.parameters())
            self.model_wrapped.eval()
            with torch.no_grad():
                seen["logits"] = self.model_wrapped(input_ids=probe()).logits.tolist()
            return result

    trainer.StepTrainer = Watched
    try:
        yield seen
    finally:
        trainer.StepTrainer = real
