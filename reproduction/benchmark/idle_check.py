"""Whether a machine is free to measure on, and whether what was measured there was left alone.

The decisions are pure functions of a `Reading` or of times; taking a reading is apart.
"""

import importlib.util
import os
import subprocess
import time
from dataclasses import dataclass

import psutil
import torch

from reproduction.benchmark.spec import Limits

PATIENCE = 3.0
"""Seconds to wait for a device to become idle: its counters lag behind our own work."""

LOOK = 0.5
"""Seconds over which a CPU's use is read."""


class Busy(Exception):
    """The machine was not free; the message has the figures and the way out."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a machine looks while we do nothing.

    Attributes:
        utilisation: percent of the device in use; None where it could not be found out.
        others: processes beside ours that use the GPU; None for a CPU, or where it could not be found out.
        load, cpus: load average of the last minute, taken before our own work alone, and the CPUs it is spread over.
    """

    utilisation: float | None
    others: int | None = None
    load: float | None = None
    cpus: int = 1


def why_busy(reading: Reading, limits: Limits) -> str | None:
    """What keeps the machine from being free, in words with figures, or None. What is not known does not."""
    if reading.others:
        return f"{reading.others} other process{'es use' if reading.others > 1 else ' uses'} the GPU"
    if reading.utilisation is not None and reading.utilisation > limits.utilisation:
        return f"{reading.utilisation:.0f} % of the device was in use while idle (at most {limits.utilisation:g} %)"
    if reading.load is not None and reading.load > limits.load * reading.cpus:
        most = f"at most {limits.load * reading.cpus:g}"
        return f"the load average of the last minute was {reading.load:.1f} on {reading.cpus} CPUs ({most})"
    return None


def why_disturbed(spread: float, limits: Limits) -> str | None:
    """Why a measurement cannot be trusted, from its relative quartile distance; None where it can."""
    if spread > limits.spread:
        return f"quartiles {100 * spread:.1f} % of the median apart (at most {100 * limits.spread:g} %)"
    return None


def drift(first_ms: float, last_ms: float) -> float:
    """Relative change of the reference between its first median and its last."""
    return last_ms / first_ms - 1


def why_drifted(change: float, limits: Limits) -> str | None:
    """Why a scenario cannot be trusted, from its reference's drift; None where it can."""
    if abs(change) > limits.drift:
        return f"the reference drifted by {100 * change:+.1f} % (at most {100 * limits.drift:g} %)"
    return None


def refusal(reason: str) -> Busy:
    """The exception that says a reason and the way out."""
    return Busy(
        f"the machine was busy: {reason}; run it when nothing else runs, or with allow_busy=true, which marks the rows"
    )


def read(device: torch.device, limits: Limits, *, ours: bool) -> Reading:
    """Look at the machine until it is free, for `PATIENCE` seconds at most; the last look counts.

    Args:
        device: whose use is read.
        limits: what counts as free.
        ours: whether our own work has begun: it is part of the load average then, which is left out.

    Leaves out memory bandwidth and heat: spread and drift show them.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    until = time.monotonic() + PATIENCE
    while True:
        found = _gpu(device) if device.type == "cuda" else _cpu(load=not ours)
        if why_busy(found, limits) is None or time.monotonic() > until:
            return found
        time.sleep(0.2)


def _cpu(*, load: bool) -> Reading:
    cpus = psutil.cpu_count() or 1
    return Reading(utilisation=psutil.cpu_percent(interval=LOOK), load=os.getloadavg()[0] if load else None, cpus=cpus)


def _gpu(device: torch.device) -> Reading:
    found = _by_library(device) or _by_command(device)
    if found is None:
        return Reading(utilisation=None)
    utilisation, processes, _ = found
    return Reading(utilisation=utilisation, others=_beside_us(processes))


def _beside_us(processes: list[int]) -> int:
    """Processes on the GPU that are not this one: by its id, or, where a container hides it, one of them."""
    others = [process for process in processes if process != os.getpid()]
    hidden = len(others) == len(processes) and torch.cuda.is_initialized()
    return max(0, len(others) - hidden)


Found = tuple[float, list[int], str]
"""Percent in use, process ids, driver's version."""


def _uuid(device: torch.device) -> str:
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _by_library(device: torch.device) -> Found | None:
    if importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        return (
            float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)],
            str(pynvml.nvmlSystemGetDriverVersion()),
        )
    except pynvml.NVMLError:
        return None


def _by_command(device: torch.device) -> Found | None:
    def ask(*query: str) -> list[str]:
        command = ["nvidia-smi", "-i", _uuid(device), *query, "--format=csv,noheader,nounits"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True)
        return [line for line in done.stdout.splitlines() if line.strip()]

    try:
        utilisation, driver = ask("--query-gpu=utilization.gpu,driver_version")[0].split(",")
        return float(utilisation), [int(pid) for pid in ask("--query-compute-apps=pid")], driver.strip()
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def driver_version(device: torch.device) -> str | None:
    """Of the GPU; None on a CPU or where nothing tells it."""
    found = (_by_library(device) or _by_command(device)) if device.type == "cuda" else None
    return found and found[2]
