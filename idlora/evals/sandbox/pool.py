"""Runs programs against tests: the side of the sandbox that the rest of the package calls."""

import os
import queue
import select
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from . import wire

OUTCOMES = ("passed", "failed", "error", "timeout", "memory", "exited", "not_plain")
_PATIENCE = 15.0  # seconds beyond a program's own limit after which the pair of processes is replaced


class ExecutionRefused(RuntimeError):
    """Model-written code was to be run and may not be, by permission or because the system cannot confine it."""


@dataclass(frozen=True)
class Permissions:
    """What the user allows. `allow_network_unconfined` is read only where the system cannot give the full sandbox."""

    allow_code_execution: bool = False
    allow_network_unconfined: bool = False


@dataclass(frozen=True)
class Limits:
    """Per program: wall-clock seconds (CPU seconds: 2 more), MiB of memory per process, MiB per file, processes."""

    seconds: float = 3.0
    memory_mb: int = 512
    file_mb: int = 16
    processes: int = 8

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value} is no limit: give a positive number")


@dataclass(frozen=True)
class Job:
    """One program and the test that judges it.

    `prompt`: source that the test may use (imports, helpers, a stub of the entry point). `test`: source that defines
    `check(candidate)`. `program`: the whole source that defines `entry_point`; only this one is not trusted.
    """

    prompt: str
    test: str
    entry_point: str
    program: str


@dataclass(frozen=True)
class Outcome:
    """`outcome` is one of OUTCOMES, `detail` a short text for people."""

    outcome: str
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def require_permission(permissions: Permissions) -> None:
    """Raises ExecutionRefused unless running model-written code is allowed."""
    if not permissions.allow_code_execution:
        raise ExecutionRefused(
            "this would run code that a model wrote: read in idlora/evals/sandbox/__init__.py what the sandbox does "
            "and does not cover, then say allow_code_execution=true"
        )


def run_jobs(
    jobs: Iterable[Job],
    *,
    permissions: Permissions,
    limits: Limits = Limits(),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """One outcome per job, in order; identical jobs run once. `progress(done, total)` counts distinct jobs.

    Raises ExecutionRefused unless `permissions` allow it and the system can confine it (see the package's docstring).
    """
    jobs = list(jobs)
    require_permission(permissions)
    distinct = list(dict.fromkeys(jobs))
    if not distinct:
        return []
    count = min(workers or os.cpu_count() or 1, len(distinct))
    idle: queue.SimpleQueue[_Pair] = queue.SimpleQueue()
    pairs = []
    threads = ThreadPoolExecutor(count)
    try:
        for _ in range(count):
            pairs.append(_Pair(permissions, limits))
            idle.put(pairs[-1])

        def run(job: Job) -> Outcome:
            pair = idle.get()
            try:
                return pair.run(job)
            finally:
                idle.put(pair)

        outcomes = {}
        for job, outcome in zip(distinct, threads.map(run, distinct), strict=True):
            outcomes[job] = outcome
            if progress:
                progress(len(outcomes), len(distinct))
    finally:
        threads.shutdown(cancel_futures=True)  # after an interrupt the jobs that wait are not run
        for pair in pairs:
            pair.close()
    return [outcomes[job] for job in jobs]


_HONEST = Job("", "def check(candidate):\n    assert candidate() == 1", "f", "def f(): return 1")


class _Pair:
    """A judge and, below it, a zygote: started on making, and again if they are lost."""

    def __init__(self, permissions: Permissions, limits: Limits):
        self._permissions, self._limits = permissions, limits
        self._start()

    def _start(self):
        reason = self._launch(confined=True)
        if reason and self._permissions.allow_network_unconfined:
            reason = self._launch(confined=False)
        if reason:
            raise ExecutionRefused(
                f"this system cannot cut model-written code off from the network and the files ({reason}); run it as "
                "root or where unprivileged user namespaces are allowed (Linux 5.12 or later), or, in a container "
                "that holds nothing of value, say allow_network_unconfined=true"
            )

    def _launch(self, confined: bool) -> str:
        """Starts the two processes; returns why the system refused, or nothing."""
        if sys.platform != "linux":
            return f"{sys.platform} has no namespaces"
        # As isolated as -I, but with a fixed hash seed, which -I would ignore: the order of sets is part of a result.
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-B", str(Path(__file__).with_name("judge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={"PATH": "/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
            cwd="/",
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        try:
            _, reason = self._exchange({"confined": confined, "limits": asdict(self._limits)})
            if not reason:
                outcome, detail = self._exchange(asdict(_HONEST))  # a sandbox that fails everyone must not score 0
                reason = "" if outcome == "passed" else f"a program that only returns 1 came to {outcome!r} {detail}"
        except (EOFError, BrokenPipeError, TimeoutError):
            reason = "its processes could not be started"
        if reason:
            self.close()
        return reason

    def run(self, job: Job) -> Outcome:
        try:
            return Outcome(*self._exchange(asdict(job)))
        except wire.NotPlain as error:
            return Outcome("error", f"the program is too long: {error}")
        except (EOFError, BrokenPipeError, TimeoutError):
            self.close()
            self._start()
            return Outcome("exited", "the sandbox's processes were lost")

    def _exchange(self, message) -> list:
        self._process.stdin.write(wire.pack(message))
        if not select.select([self._process.stdout], [], [], self._limits.seconds + _PATIENCE)[0]:
            raise TimeoutError
        return wire.unpack(wire.reader(self._process.stdout))

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
