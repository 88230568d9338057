"""Public side of the sandbox: runs programs against tests in a pool of processes."""

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
CONFINEMENTS = ("full", "unconfined")  # in order of preference
_PATIENCE = 15.0  # seconds beyond a program's limit after which the pair of processes is replaced
_GOODBYE = 2.0  # seconds for a pair of processes to exit


class ExecutionRefused(RuntimeError):
    """Model-written code may not run: it lacks permission, or cannot be confined."""


@dataclass(frozen=True)
class Permissions:
    """The user's permissions.

    Args:
        allow_code_execution: whether model-written code may run.
        allow_network_unconfined: whether it may run if the system cannot provide the full sandbox.
    """

    allow_code_execution: bool = False
    allow_network_unconfined: bool = False


@dataclass(frozen=True)
class Limits:
    """Limits of each program, all above 0.

    Args:
        seconds: wall-clock seconds; the CPU limit is 2 seconds higher.
        memory_mb: MiB of address space of each process, and of the memory of all processes of a program together.
        file_mb: MiB of a file.
        processes: number of simultaneous processes.
    """

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
    """One program and its test; only the program is untrusted.

    Args:
        prompt: source that the test may use (imports, helpers, a stub of the entry point).
        test: source that defines `check(candidate)`.
        entry_point: the function's name.
        program: full source that defines it.
    """

    prompt: str
    test: str
    entry_point: str
    program: str


@dataclass(frozen=True)
class Outcome:
    """Result of a job: one of OUTCOMES, a short human-readable detail, one of CONFINEMENTS."""

    outcome: str
    detail: str
    confinement: str

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def require_permission(permissions: Permissions) -> None:
    """Raise ExecutionRefused unless running model-written code is allowed."""
    if not permissions.allow_code_execution:
        raise ExecutionRefused(
            "this would run code that a model wrote: read in reproduction/evals/sandbox/__init__.py what the sandbox "
            "does and does not cover, then say allow_code_execution=true"
        )


def run_jobs(
    jobs: Iterable[Job],
    *,
    permissions: Permissions,
    limits: Limits = Limits(),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Return one outcome per job, in order; identical jobs run once. `progress(done, total)` counts distinct jobs.

    Raises ExecutionRefused without permission, if the system cannot confine the code (see the package's docstring), or
    if the sandbox's processes fail to start twice for another reason.
    """
    jobs = list(jobs)
    require_permission(permissions)
    distinct = list(dict.fromkeys(jobs))
    if not distinct:
        return []
    count = min(workers or _usable_cpus(), len(distinct))
    idle: queue.SimpleQueue[_Pair] = queue.SimpleQueue()
    pairs = []
    threads = ThreadPoolExecutor(count)

    def run(job: Job) -> Outcome:
        pair = idle.get()
        try:
            return pair.run(job)
        finally:
            idle.put(pair)

    outcomes = {}
    try:
        for _ in range(count):
            pairs.append(_Pair(permissions, limits))
            idle.put(pairs[-1])
        for job, outcome in zip(distinct, threads.map(run, distinct), strict=True):
            outcomes[job] = outcome
            if progress:
                progress(len(outcomes), len(distinct))
    finally:
        threads.shutdown(cancel_futures=True)  # after an interrupt waiting jobs do not run
        for pair in pairs:
            pair.close()
    return [outcomes[job] for job in jobs]


def _usable_cpus() -> int:
    """Return the usable CPUs, which a container or batch job may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Imports standard modules that none of our processes has loaded before.
_START_UP_CHECK = Job(
    "",
    "def check(candidate):\n    assert candidate() == 1",
    "f",
    "import calendar, queue, threading\ndef f(): return 1",
)


def _not_at_all(reason: str) -> ExecutionRefused:
    return ExecutionRefused(f"this system cannot confine model-written code at all ({reason}); run it elsewhere")


class _Unfit(Exception):
    """The sandbox started but cannot run the simplest program."""


class _Pair:
    """A judge process and its child, the zygote, restarted if lost; `confinement` is their current confinement.

    They die with the thread that starts them: do not use a pair after that thread has ended.
    """

    def __init__(self, permissions: Permissions, limits: Limits):
        self._permissions, self._limits = permissions, limits
        self._start()

    def _start(self):
        for confinement in CONFINEMENTS if self._permissions.allow_network_unconfined else CONFINEMENTS[:1]:
            self.confinement = confinement
            refusal = self._launch()
            if not refusal:
                return
        if self._permissions.allow_network_unconfined:
            raise _not_at_all(refusal)
        raise ExecutionRefused(
            f"this system cannot cut model-written code off from the network and the files ({refusal}); run it as "
            "root or where unprivileged user namespaces are allowed (Linux 5.12 or later), or, in a container "
            "that holds nothing of value, say allow_network_unconfined=true"
        )

    def _launch(self) -> str:
        """Start the two processes, with one retry; return why the system denies the confinement, or "".

        Raises ExecutionRefused if no confinement is possible, or if both attempts fail for another reason: a slow
        machine must not lead to less confinement.
        """
        if sys.platform != "linux":
            raise _not_at_all(f"{sys.platform} is not Linux")
        for _ in range(2):
            try:
                return self._attempt()
            except (EOFError, OSError, wire.NotPlain, _Unfit) as error:
                failure = error
        raise ExecutionRefused(
            f"the sandbox failed to start twice ({str(failure).strip() or type(failure).__name__}) although the system "
            "did not deny it; run the same command again when the machine has less to do"
        )

    def _attempt(self) -> str:
        # Like -I, but -I would ignore the fixed hash seed, and the order of sets affects results.
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-B", str(Path(__file__).with_name("judge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={"PATH": "/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
            cwd="/",
            start_new_session=True,  # we handle Ctrl-C
        )
        try:
            confined = self.confinement == "full"
            answer, reason = self._exchange(
                {"confined": confined, "limits": asdict(self._limits), "parent": os.getpid()}
            )
            if answer == "unsupported":
                raise _not_at_all(reason)
            if answer == "ready":
                self._check()  # a broken sandbox must not score 0
                return ""
        except BaseException:
            self.close()
            raise
        self.close()
        return reason

    def _check(self) -> None:
        outcome, detail = self._exchange(asdict(_START_UP_CHECK))
        if outcome == "error" and detail.startswith(("ModuleNotFoundError", "ImportError", "PermissionError")):
            raise ExecutionRefused(
                f"programs in the sandbox cannot import the standard library ({detail}), most likely since "
                f"the user that they run as may not read {os.path.dirname(os.__file__)}: use a Python that "
                "every user can read (below /usr or /opt, not in a home folder), or do not run this as root"
            )
        if outcome != "passed":
            raise _Unfit(f"a program that only returns 1 came to {outcome!r} {detail}")

    def run(self, job: Job) -> Outcome:
        try:
            return Outcome(*self._exchange(asdict(job)), self.confinement)
        except wire.NotPlain as error:
            return Outcome("error", f"the program is too long: {error}", self.confinement)
        except (EOFError, BrokenPipeError, TimeoutError):
            lost = Outcome("exited", "the sandbox's processes were lost", self.confinement)
            self.close()
            self._start()
            return lost

    def _exchange(self, message) -> list:
        self._process.stdin.write(wire.pack(message))
        patience = self._limits.seconds + _PATIENCE
        if not select.select([self._process.stdout], [], [], patience)[0]:
            raise TimeoutError(f"no answer within {patience:g} seconds")
        return wire.unpack(self._process.stdout.read)

    def close(self):
        """End both processes: closing standard input makes them exit; they are killed after `_GOODBYE` seconds."""
        self._process.stdin.close()
        try:
            self._process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
