"""Whether a machine is free to measure on, and whether what was measured there was left alone."""

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
    """Use of a machine while this process does nothing.

    Attributes:
        utilisation: percent of the device in use; None where it could not be found out.
        others: other processes on the GPU; None for a CPU, or where it could not be found out.
        load, cpus: load average of the last minute, taken before our own work alone, and the number of CPUs.
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


def why_drifted(change: float, limits: Limits) -> str | None:
    """Why a scenario cannot be trusted, from its reference's relative drift; None where it can."""
    if abs(change) > limits.drift:
        return f"the reference drifted by {100 * change:+.1f} % (at most {100 * limits.drift:g} %)"
    return None


def read(device: torch.device, limits: Limits, *, ours: bool) -> Reading:
    """Look at the machine until it is free, for `PATIENCE` seconds at most; the last look counts.

    Args:
        device: whose use is read.
        limits: what counts as free.
        ours: whether our own work has begun: it is part of the load average then, which is left out.
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
    """Of the GPU; None on a CPU or without nvidia-smi."""
    found = _query(device, "--query-gpu=driver_version") if device.type == "cuda" else None
    return found[0] if found else None


def _cpu(*, load: bool) -> Reading:
    cpus = psutil.cpu_count() or 1
    return Reading(utilisation=psutil.cpu_percent(interval=LOOK), load=os.getloadavg()[0] if load else None, cpus=cpus)


def _gpu(device: torch.device) -> Reading:
    used, processes = _query(device, "--query-gpu=utilization.gpu"), _query(device, "--query-compute-apps=pid")
    if not used or processes is None:
        return Reading(utilisation=None)
    others = [process for process in processes if process != str(os.getpid())]
    hidden = len(others) == len(processes) and torch.cuda.is_initialized()  # a container hides our id: one is ours
    return Reading(utilisation=float(used[0]), others=max(0, len(others) - hidden))


def _query(device: torch.device, query: str) -> list[str] | None:
    """The lines that nvidia-smi answers; None where it cannot."""
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", "-i", uuid, query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
