"""Seconds, quartiles and peak memory of a step: a function without arguments that queues work on a device."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds of a step: median, quartiles, smallest; the number of steps timed."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    min_ms: float
    repeats: int

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        return (self.q3_ms - self.q1_ms) / self.median_ms


def summarise(milliseconds: Sequence[float]) -> Timing:
    """The figures of at least two times in milliseconds. Leaves out the times themselves."""
    q1, median, q3 = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(median_ms=median, q1_ms=q1, q3_ms=q3, min_ms=min(milliseconds), repeats=len(milliseconds))


def time_step(step: Callable[[], None], repeats: int, device: torch.device) -> Timing:
    """Time `repeats` steps one after another: with CUDA events on a GPU, by the wall clock elsewhere.

    Nothing waits between two steps on a GPU, so a step that the host cannot queue fast enough is as slow as it would
    be in a loop. Leaves out warm-up, and flushing caches: a step touches far more than a cache holds.
    """
    return summarise(_on_gpu(step, repeats) if device.type == "cuda" else _on_cpu(step, repeats))


def _on_gpu(step: Callable[[], None], repeats: int) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize()
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]


def _on_cpu(step: Callable[[], None], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - began))
    return times


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(step: Callable[[], None], device: torch.device) -> int | None:
    """Most bytes allocated at once during one step, whatever stays in memory before it included; None on a CPU.

    Leaves out what the CUDA context and the allocator hold beyond tensors.
    """
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def allocated_bytes(device: torch.device) -> int | None:
    """Bytes of all tensors on a GPU; None on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None
