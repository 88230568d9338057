"""Jobs of the pool's tests; worker processes import this module by name."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from reproduction.running.pool import run_jobs
from reproduction.running.progress import NullProgress


def work(job, progress):
    """Run a job: ("add", a, b), ("fail", why), ("die",), ("wait", path), ("hold", path), ("start",) (check the pipe in
    a subprocess), ("who",).
    """
    kind, *rest = job
    if kind == "add":
        progress.step("adding", 1, 2, note="half")
        return sum(rest)
    if kind == "fail":
        raise ValueError(rest[0])
    if kind == "die":
        os.kill(os.getpid(), 9)
    if kind == "hold":
        Path(rest[0]).write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(60)  # no thread of the interpreter runs meanwhile
    if kind == "start":
        look = f"import os; os.fstat({sys.orig_argv[-1]})"
        return subprocess.run([sys.executable, "-c", look], close_fds=False, capture_output=True, text=True).stderr
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


if __name__ == "__main__":
    import pool_work  # the name that the workers import

    jobs = [("hold", place) for place in sys.argv[1:]]
    run_jobs(pool_work.work, jobs, workers=2, threads=1, names=sys.argv[1:], progress=NullProgress(), ended=print)
