"""Small programs for the sandbox, and helpers to find their leftovers."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from reproduction.evals import sandbox
from reproduction.evals.sandbox import Job, Limits, Outcome, Permissions
from reproduction.evals.sandbox.pool import _Pair

ALLOWED = Permissions(allow_code_execution=True)
QUICK = Limits(seconds=1.0)
PACKAGE = Path(sandbox.__file__).parent


def job(body: str, test: str = "assert candidate() == 42", *, prompt: str = "def f(*args):\n    pass\n") -> Job:
    check = "def check(candidate):\n" + textwrap.indent(textwrap.dedent(test), "    ")
    return Job(prompt=prompt, test=check, entry_point="f", program=textwrap.dedent(body))


@functools.cache
def pair(limits: Limits = QUICK) -> _Pair:
    """The processes that run all programs of the tests that have these limits."""
    started = _Pair(ALLOWED, limits)
    atexit.register(started.close)
    return started


def outcome(body: str, test: str = "assert candidate() == 42", *, limits: Limits = QUICK, **options: str) -> Outcome:
    return pair(limits).run(job(body, test, **options))


def returned(body: str, limits: Limits = QUICK) -> str:
    """Return the repr of the program's f(), through the text of a failed assertion."""
    found = outcome(body, "assert False, repr(candidate())", limits=limits)
    assert found.outcome == "failed", found
    return found.detail


def descendants(pid: int) -> set[int]:
    """Return the process and its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(head.split()[0])] = int(tail.split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("sandbox", {init!r}, submodule_search_locations=[{package!r}])
sandbox = sys.modules["sandbox"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
{before}
jobs = [sandbox.Job("def f(): pass", "def check(c): assert c() == 42", "f", p) for p in {programs!r}]
try:
    found = sandbox.run_jobs(jobs, permissions=sandbox.Permissions(True, {unconfined}))
    print([o.outcome for o in found], *{{o.confinement for o in found}})
except sandbox.ExecutionRefused as error:
    print(error)
"""


def elsewhere(programs: list[str], *, before: str = "", unconfined: bool = False, **options) -> str:
    """What another process, of another user or on another system, prints that runs the programs."""
    script = SCRIPT.format(
        init=str(PACKAGE / "__init__.py"), package=str(PACKAGE), before=before, programs=programs, unconfined=unconfined
    )
    python = options.pop("python", sys.executable)
    return subprocess.run(
        [python, "-B", "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd="/", **options
    ).stdout


def python_for_everyone() -> str | None:
    for python in (sys.executable, "/usr/bin/python3"):
        if shutil.which(python) and os.geteuid() == 0:
            probe = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            try:
                subprocess.run(probe, user=65534, group=65534, extra_groups=[], cwd="/", check=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            return python
    return None
