"""Scripts, and what they would start processes for, in the process of the tests: torch is imported once."""

import runpy
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def run_script(name: str, *arguments: object) -> int:
    """Run ``scripts/<name>.py arguments`` in this process; return its exit code."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    sys.argv = [name, *map(str, arguments)]
    try:
        runpy.run_path(str(REPOSITORY / "scripts" / f"{name}.py"), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
    return 0


def run_jobs_here(function, jobs, *, progress, ended, more=lambda end: (), **_) -> None:
    """Take the place of `run_jobs`: the same jobs in this process, one after another."""
    from reproduction.running.pool import Ended

    jobs = list(jobs)
    for number, job in enumerate(jobs):
        ended(end := Ended(job=number, value=function(job, progress), error=None, seconds=1.0))
        jobs += [each for each, _ in more(end)]
