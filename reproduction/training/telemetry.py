"""Resource figures of a run: time, memory, parameters, bytes on disk."""

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
"""First steps of a session, excluded from the timings: allocators and kernels warm up in them."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resource figures of a run; resources.json is this as a dict.

    Args:
        steps: optimiser steps of the whole run.
        steps_timed: steps in the timings: those of the last session after warm-up. Without any the timings are None.
        step_seconds_median, step_seconds_iqr, step_seconds_max: forward, backward and update of one optimiser step.
        tokens_per_second: prompt and response tokens without padding, of all processes.
        setup_seconds: time before the first step: creating the Trainer, loading a checkpoint.
        train_seconds: time from the first to the last step of the last session, with checkpoints and data loading.
        peak_memory_bytes: largest peak of a process: allocated memory on a GPU since the training began, resident
            memory on a CPU since the process began.
        adapter_bytes: bytes on disk of the adapter or, in full fine-tuning, of the model.
        parameters_trainable, parameters_router: trained parameters, and those of them in a router (by their names).
        parameters_total: parameters of the model, base and adapter.
        frozen_copies: entries of base weights that the method uses as frozen parameters, copied or not.
        selection_seconds: time for choosing among the base's weights before training.
        final_loss: mean over the response tokens of the last step.
        data: report on the training set, see `reproduction.data.TokenizedSet.report`.
        threads, device, processes: hardware of the run.
        micro_batch_size, accumulation: rows of one forward pass, and passes per step, of each process.
        gradient_checkpointing: whether activations were recomputed.
        passes: "padded" by the Trainer, or "packed" by `reproduction.training.passes`, with or without CUDA graphs.
        recording_seconds: time for recording those graphs.
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
    """Count parameters_trainable, parameters_router, parameters_total and frozen_copies of a model."""
    trainable = {name: _numel(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        "parameters_trainable": sum(trainable.values()),
        "parameters_router": sum(count for name, count in trainable.items() if "router" in name),
        "parameters_total": sum(map(_numel, model.parameters())),
        "frozen_copies": tuner_attribute(model, "frozen_copy_count", lambda: 0)(),
    }


def _numel(parameter: nn.Parameter) -> int:
    # DeepSpeed ZeRO-3 replaces a parameter by an empty one and stores its size in `ds_numel`.
    return getattr(parameter, "ds_numel", parameter.numel())


def selection_seconds(model: nn.Module) -> float:
    """Return the seconds that a method spent choosing among base weights; 0 if it does not choose."""
    return tuner_attribute(model, "pivot_seconds", 0.0)


def tuner_attribute(model: nn.Module, name: str, default: Any) -> Any:
    """Return an optional attribute of the model's PEFT tuner."""
    return getattr(model.base_model, name, default) if isinstance(model, PeftModel) else default


def device_name(device: torch.device) -> str:
    """Return the GPU's product name, or the device's type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def own_peak_memory_bytes(device: torch.device) -> int:
    """Return the value of `Resources.peak_memory_bytes` for this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux reports KiB


def peak_memory_bytes(device: torch.device) -> int:
    """Return `Resources.peak_memory_bytes`; all processes must call it."""
    peak = torch.tensor(own_peak_memory_bytes(device), device=device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX)
    return int(peak)


def weight_bytes(folder: Path) -> int:
    """Return the bytes of the safetensors files of a saved adapter or model."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class Laps:
    """Seconds of successive phases, by name; the first Laps of a process also has its "imports"."""

    _imports: float | None = time.time() - psutil.Process().create_time()

    def __init__(self) -> None:
        self.seconds = {} if Laps._imports is None else {"imports": Laps._imports}
        self._last, Laps._imports = time.perf_counter(), None

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


class Stopwatch(TrainerCallback):
    """Timer for the steps of one session of the Trainer, which must log every step; calls `on_step(step, total, loss)`.

    A step ends when its loss is logged: reading the loss waits for the device, so its time is included.
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
        """Return the value of `Resources.tokens_per_second` for the last step."""
        return (self.tokens[-1] - self.tokens[-2]) / self.step_seconds[-1]

    def figures(self) -> dict[str, float | int | None]:
        """Return steps_timed, step_seconds_median, _iqr, _max, tokens_per_second, setup_seconds, train_seconds."""
        # All steps of a run shorter than the warm-up count: a rough timing is better than none.
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
