"""Time, quartiles and peak memory of a step: a function without arguments that queues work on a device."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch

MIB = 2**20


def summarise(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return median, quartiles, minimum and count of two or more times, and their interquartile range over median."""
    q1, median, q3 = statistics.quantiles(milliseconds, n=4, method="inclusive")
    times = {"median_ms": median, "q1_ms": q1, "q3_ms": q3, "min_ms": min(milliseconds)}
    return times | {"repeats": len(milliseconds), "spread": (q3 - q1) / median}


def time_step(step: Callable[[], None], repeats: int, device: torch.device) -> dict[str, float]:
    """Time `repeats` consecutive steps, with CUDA events on a GPU and the wall clock elsewhere.

    Steps on a GPU are not synchronised with each other, so a step that the host queues too slowly is as slow as it
    would be in a loop. Caches are not flushed: a step touches far more than a cache holds.
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
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(step: Callable[[], None], device: torch.device) -> int | None:
    """Return the peak bytes allocated during one step, earlier allocations included; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def allocated_bytes(device: torch.device) -> int | None:
    """Return the bytes of all tensors on a GPU; None on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None
