"""What a run costs: time, memory, parameters, bytes on disk."""

import math
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback

WARMUP_STEPS = 3
"""First steps of a session, left out of the figures of time: allocators and kernels settle in them."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resource figures of a run; resources.json is this as a dict.

    Args:
        steps: optimiser steps of the whole run.
        steps_timed: those behind the figures of time: of the last session, after warm-up. With none they are None.
        step_seconds_median, step_seconds_iqr, step_seconds_max: forward, backward and update of one optimiser step.
        tokens_per_second: prompt and response tokens, padding apart, of all processes.
        setup_seconds: before the first step: the Trainer, a checkpoint.
        train_seconds: from the first step to the last of the last session, checkpoints and data loading included.
        peak_memory_bytes: of the process that had most: on a GPU allocated at once since the training began, on a CPU
            resident since the process began.
        adapter_bytes: weights on disk, of the adapter or, where everything is trained, of the model.
        parameters_trainable, parameters_router: numbers trained, and those of them in a router (by their names).
        parameters_total: numbers in the model, base and adapter.
        frozen_copies: numbers that a method would hold as frozen copies of base weights if it copied them.
        selection_seconds: spent choosing among the base's weights before training.
        final_loss: mean over the response tokens of the last step.
        data: account of the training set, see `reproduction.data.TokenizedSet.report`.
        threads, device, processes: what it ran on.
        micro_batch_size, accumulation: rows of one forward pass, and passes behind one step, of each process.
        gradient_checkpointing: whether activations were recomputed.
        passes: "padded" by the Trainer, or "packed" by `reproduction.training.passes`, with or without CUDA graphs.
        recording_seconds: spent on recording those graphs.
    """

    steps: int
    steps_timed: int
    step_seconds_median: float | None
    step_seconds_iqr: float | None
    step_seconds_max: float | None
    tokens_per_second: float | None
    setup_seconds: float
    train_seconds: float
    peak_memory_bytes: int
    adapter_bytes: int
    parameters_trainable: int
    parameters_router: int
    parameters_total: int
    frozen_copies: int
    selection_seconds: float
    final_loss: float
    data: dict[str, Any]
    threads: int
    device: str
    processes: int
    micro_batch_size: int
    accumulation: int
    gradient_checkpointing: bool
    passes: str
    recording_seconds: float


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Numbers in a model: parameters_trainable, parameters_router, parameters_total, frozen_copies."""
    trainable = {name: _numel(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        "parameters_trainable": sum(trainable.values()),
        "parameters_router": sum(count for name, count in trainable.items() if "router" in name),
        "parameters_total": sum(map(_numel, model.parameters())),
        "frozen_copies": tuner_attribute(model, "frozen_copy_count", lambda: 0)(),
    }


def _numel(parameter: nn.Parameter) -> int:
    # DeepSpeed ZeRO-3 leaves an empty parameter behind and keeps its size here.
    return getattr(parameter, "ds_numel", parameter.numel())


def selection_seconds(model: nn.Module) -> float:
    """Seconds that a method spent choosing among base weights; 0 for one that does not choose."""
    return tuner_attribute(model, "pivot_seconds", 0.0)


def tuner_attribute(model: nn.Module, name: str, default: Any) -> Any:
    """An attribute of the model's PEFT tuner, which may tell more of itself than PEFT asks for."""
    return getattr(model.base_model, name, default) if isinstance(model, PeftModel) else default


def device_name(device: torch.device) -> str:
    """The GPU's product name, or the device's type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def own_peak_memory_bytes(device: torch.device) -> int:
    """`Resources.peak_memory_bytes` of this process alone."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux gives KiB


def peak_memory_bytes(device: torch.device) -> int:
    """See `Resources.peak_memory_bytes`; all processes must call it."""
    peak = torch.tensor(own_peak_memory_bytes(device), device=device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX)
    return int(peak)


def weight_bytes(folder: Path) -> int:
    """Bytes of the safetensors in a saved adapter or model."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class Laps:
    """Seconds of one phase after another, by name; the first of a process has its "imports" too."""

    _imports: float | None = time.time() - psutil.Process().create_time()

    def __init__(self) -> None:
        self.seconds = {} if Laps._imports is None else {"imports": Laps._imports}
        self._last, Laps._imports = time.perf_counter(), None

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


class Stopwatch(TrainerCallback):
    """Times the steps of one session of the Trainer, which must log every step; calls `on_step(step, total, loss)`.

    A step ends when its loss is logged: reading the loss waits for the device, so the time is the device's too.
    """

    def __init__(self, on_step: Callable[[int, int, float], None] | None = None):
        self.on_step = on_step
        self.step_seconds: list[float] = []
        self.tokens: list[int] = []
        self._made = self._began = self._first = self._last = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self._first = self._last = time.perf_counter()
        self.tokens = [int(state.num_input_tokens_seen)]

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = time.perf_counter()

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs:
            return
        self._last = time.perf_counter()
        self.step_seconds.append(self._last - self._began)
        self.tokens.append(int(state.num_input_tokens_seen))
        if self.on_step is not None:
            self.on_step(state.global_step, state.max_steps, logs["loss"])

    def last_tokens_per_second(self) -> float:
        """`Resources.tokens_per_second` of the last step alone."""
        return (self.tokens[-1] - self.tokens[-2]) / self.step_seconds[-1]

    def figures(self) -> dict[str, float | int | None]:
        """steps_timed, step_seconds_median, _iqr and _max, tokens_per_second, setup_seconds, train_seconds."""
        # A run shorter than the warm-up is timed whole: a rough figure says more than none.
        skipped = WARMUP_STEPS if len(self.step_seconds) > WARMUP_STEPS else 0
        timed = self.step_seconds[skipped:]
        tokens = self.tokens[-1] - self.tokens[skipped] if timed else 0
        quartiles = statistics.quantiles(timed, n=4, method="inclusive") if len(timed) > 1 else None
        return {
            "steps_timed": len(timed),
            "step_seconds_median": statistics.median(timed) if timed else None,
            "step_seconds_iqr": quartiles[2] - quartiles[0] if quartiles else None,
            "step_seconds_max": max(timed, default=None),
            "tokens_per_second": tokens / math.fsum(timed) if timed else None,
            "setup_seconds": self._first - self._made,
            "train_seconds": self._last - self._first,
        }
