"""A model for tests of evaluations that records its prompts; other processes import this module by name."""

import functools
import os
from collections import Counter
from pathlib import Path

import torch
from byte_tokenizer import VOCABULARY, byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from reproduction.cells.evaluation import EvalJob
from reproduction.evals.sandbox import Permissions
from reproduction.evals.task import Protocol
from reproduction.running.progress import NullProgress

TOKENIZER = byte_tokenizer()

PROTOCOLS = (
    Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=12, limit=9),
    Protocol(benchmark="mmlu", protocol_version=1, scoring="likelihood", num_fewshot=2, limit=7),
    Protocol(
        benchmark="humaneval", protocol_version=1, max_new_tokens=12, limit=3, samples=2, temperature=1.0,
        execution_seconds=1.0,
    ),
)  # fmt: skip


def subject_in(folder: Path, data_root: Path, **changes) -> EvalJob:
    """Return a job in ``folder``, where its model records its prompts."""
    settings = {
        "folder": folder, "load": functools.partial(load_watched, folder), "identity": _identity,
        "protocols": PROTOCOLS, "data_root": data_root, "batch_size": 2, "threads": 1,
        "permissions": Permissions(allow_code_execution=True),
    }  # fmt: skip
    return EvalJob(**settings | changes)


def records(subject: EvalJob) -> dict[str, bytes]:
    """Return the scores of every evaluation, by benchmark and file."""
    return {
        f"{protocol.benchmark}/{name}": (subject.eval_folder(protocol) / name).read_bytes()
        for protocol in subject.protocols
        for name in ("meta.json", "items.jsonl", "DONE")
    }


def asked(subject: EvalJob) -> list[list[str]]:
    """Return the prompts that each process read."""
    return [path.read_text().splitlines() for path in sorted(subject.folder.glob("asked.*"))]


def asked_in_all(subject: EvalJob) -> Counter:
    """Return how often all processes together read each prompt."""
    return Counter(prompt for prompts in asked(subject) for prompt in prompts)


def loaded(subject: EvalJob) -> int:
    """Return how many processes loaded the model."""
    return len(list(subject.folder.glob("loaded.*")))


class Stopped(Exception):
    """Stands for an interrupt at a step that the test chooses."""


class Stopping(NullProgress):
    """Raises `Stopped` after a number of steps of a phase."""

    def __init__(self, phase: str, steps: int):
        self.phase, self.steps = phase, steps

    def step(self, phase, done, total, *, note="", slot=0):
        if phase == self.phase and done >= self.steps:
            raise Stopped


def load_watched(watch: Path):
    """Load a small random model that writes its prompts to ``watch``/asked.<process id>, and loaded.<process id>.

    The process that removes ``watch``/die is killed at its second batch of prompts.
    """
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, initializer_range=0.2, max_position_embeddings=8192, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double().eval()
    (watch / f"loaded.{os.getpid()}").touch()
    model.register_forward_pre_hook(_Watching(watch), with_kwargs=True)
    return model, TOKENIZER


def _identity() -> str:
    return "a small random model"


class _Watching:
    def __init__(self, watch: Path):
        self.watch, self.batches = watch, 0

    def __call__(self, model, args, kwargs):
        if kwargs["input_ids"].shape[1] == 1:
            return
        self.batches += 1
        if self.batches == 2 and (self.watch / "die").exists():
            (self.watch / "die").unlink()
            os.kill(os.getpid(), 9)
        with (self.watch / f"asked.{os.getpid()}").open("a") as file:
            for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True):
                print(ascii(TOKENIZER.decode(ids[mask.bool()])), file=file)
