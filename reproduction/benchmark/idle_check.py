"""Checks that a machine is free to measure on, and that nothing disturbed the measurements."""

import os
import subprocess
import time
from dataclasses import dataclass

import psutil
import torch

from reproduction.benchmark.spec import Limits

PATIENCE = 3.0
"""Seconds to wait for a device to become idle: its counters lag behind this process's own work."""

LOOK = 0.5
"""Seconds over which CPU utilisation is averaged."""


class Busy(Exception):
    """The machine is not free; the message has the figures and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Utilisation of a machine while this process is idle.

    Attributes:
        utilisation: percent of the device in use; None if unknown.
        others: other processes on the GPU; None for a CPU or if unknown.
        load, cpus: load average of the last minute (read only before this process's own work) and number of CPUs.
    """

    utilisation: float | None
    others: int | None = None
    load: float | None = None
    cpus: int = 1


def why_busy(reading: Reading, limits: Limits) -> str | None:
    """Return why the machine is not free, with figures, or None. Unknown figures do not count as busy."""
    if reading.others:
        return f"{reading.others} other process{'es use' if reading.others > 1 else ' uses'} the GPU"
    if reading.utilisation is not None and reading.utilisation > limits.utilisation:
        return f"{reading.utilisation:.0f} % of the device was in use while idle (at most {limits.utilisation:g} %)"
    if reading.load is not None and reading.load > limits.load * reading.cpus:
        most = f"at most {limits.load * reading.cpus:g}"
        return f"the load average of the last minute was {reading.load:.1f} on {reading.cpus} CPUs ({most})"
    return None


def why_disturbed(spread: float, limits: Limits) -> str | None:
    """Return why a measurement with this relative interquartile range cannot be trusted, or None if it can."""
    if spread > limits.spread:
        return f"quartiles {100 * spread:.1f} % of the median apart (at most {100 * limits.spread:g} %)"
    return None


def why_drifted(change: float, limits: Limits) -> str | None:
    """Return why a scenario whose reference drifted by this relative amount cannot be trusted, or None if it can."""
    if abs(change) > limits.drift:
        return f"the reference drifted by {100 * change:+.1f} % (at most {100 * limits.drift:g} %)"
    return None


def read(device: torch.device, limits: Limits, *, ours: bool) -> Reading:
    """Poll the machine until it is free, for at most `PATIENCE` seconds, and return the last reading.

    Args:
        device: device to read.
        limits: thresholds below which it is free.
        ours: whether this process's own work has begun. The load average then contains it and is not read.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    until = time.monotonic() + PATIENCE
    while True:
        found = _gpu(device) if device.type == "cuda" else _cpu(load=not ours)
        if why_busy(found, limits) is None or time.monotonic() > until:
            return found
        time.sleep(0.2)


def driver_version(device: torch.device) -> str | None:
    """Return the GPU's driver version, None on a CPU or without nvidia-smi."""
    found = _query(device, "--query-gpu=driver_version") if device.type == "cuda" else None
    return found[0] if found else None


def _cpu(*, load: bool) -> Reading:
    cpus = psutil.cpu_count() or 1
    return Reading(utilisation=psutil.cpu_percent(interval=LOOK), load=os.getloadavg()[0] if load else None, cpus=cpus)


def _gpu(device: torch.device) -> Reading:
    used, processes = _query(device, "--query-gpu=utilization.gpu"), _query(device, "--query-compute-apps=pid")
    if not used or processes is None or not used[0].isdecimal():  # "[N/A]" of a part of a GPU
        return Reading(utilisation=None)
    others = [process for process in processes if process != str(os.getpid())]
    hidden = len(others) == len(processes) and torch.cuda.is_initialized()  # a container hides our id: one is ours
    return Reading(utilisation=float(used[0]), others=max(0, len(others) - hidden))


def _query(device: torch.device, query: str) -> list[str] | None:
    """Return the lines that nvidia-smi prints, or None if it fails."""
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", "-i", uuid, query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
