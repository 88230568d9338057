"""What the pool's test gives its workers; spawned processes import it by name."""

import os
import time
from pathlib import Path


def work(job, progress):
    """Do as the job says: ("add", a, b), ("fail", why), ("die",), ("wait", path), ("who",)."""
    kind, *rest = job
    if kind == "add":
        progress.step("adding", 1, 2, note="half")
        return sum(rest)
    if kind == "fail":
        raise ValueError(rest[0])
    if kind == "die":
        os.kill(os.getpid(), 9)
    if kind == "wait":
        _wait(Path(rest[0]))
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def _wait(path):
    try:
        path.write_text("waiting")
        time.sleep(60)
    except KeyboardInterrupt:
        path.write_text("interrupted")
        raise
