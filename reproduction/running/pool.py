"""Jobs side by side, each in one of a few worker processes that live on from job to job.

    parent ── job ──> worker      one pipe each way; a worker has one job at a time
    parent <── step, done, failed ──

What a job raises ends that job and its process, and no other: the next job gets a fresh process, so that neither a
poisoned GPU nor a half-imported module is handed on. A process that dies (out of memory, a crash in native code) fails
its job alike. A worker does not outlive the parent, however that ends. Left out: retries, jobs that need each other.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from reproduction.running.progress import NullProgress
from reproduction.system import orphans

PATIENCE = 20.0
"""Seconds that an interrupted worker has to mark its job before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One job's end: ``value`` is what it returned, or ``error`` why it failed, in ``seconds``."""

    job: int
    value: Any
    error: str | None
    seconds: float


def run_jobs(
    function: Callable[[Any, NullProgress], Any],
    jobs: Sequence[Any],
    *,
    workers: int,
    threads: int,
    names: Sequence[str],
    progress: NullProgress,
    ended: Callable[[Ended], None],
    more: Callable[[Ended], Iterable[tuple[Any, str]]] = lambda end: (),
) -> None:
    """Call ``function(job, progress)`` for every job, ``workers`` at a time, the first jobs first.

    ``function`` is importable by its name, a job and what is returned are picklable. A worker's libraries get
    ``threads`` each, unless OMP_NUM_THREADS says otherwise. ``progress`` is shown which of
    the ``names`` each worker is at; ``ended`` is called here, in the order in which jobs end. After it, ``more`` may
    give jobs that follow from the one that ended, with their names: they are the next ones. An interrupt (or any error
    of ``ended``) interrupts the workers, waits for them to mark what they were at, and is passed on.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # read when a worker imports numpy: nothing later helps
    jobs, names = list(jobs), list(names)
    waiting, crew = deque(range(len(jobs))), {}
    try:
        while waiting or crew:
            for slot in range(workers):
                if waiting and slot not in crew:
                    crew[slot] = _Worker(function, slot, alone=workers == 1)
                    crew[slot].start()
                if waiting and crew[slot].job is None:
                    crew[slot].give(waiting.popleft(), jobs)
                    progress.cell(names[crew[slot].job], slot=slot)
            for slot in [slot for slot, worker in crew.items() if worker.job is None]:  # no job is left for it
                crew.pop(slot).stop()
            for slot in _ready(crew):
                end = crew[slot].listen(lambda *step, slot=slot, **note: progress.step(*step, slot=slot, **note))
                if end is not None:
                    ended(end)
                    for job, name in more(end):
                        waiting.appendleft(len(jobs))
                        jobs.append(job)
                        names.append(name)
                if crew[slot].left:
                    crew.pop(slot).stop()
    finally:
        _stop_all(crew)


class _Worker:
    """One process and this end of its pipe. ``job`` is the index of the one that it is at, None between two."""

    def __init__(self, function: Callable[[Any, NullProgress], Any], slot: int, *, alone: bool):
        self.pipe, self._theirs = multiprocessing.Pipe()
        self.process: subprocess.Popen | None = None
        self.job: int | None = None
        self.left = False
        self._began = 0.0
        self._told = (sys.path, sys.argv), (function, slot, alone)

    def start(self) -> None:
        # A Ctrl-C in a terminal goes to every process there: ours passes it on, in its own way and once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            number = self._theirs.fileno()
            asked = [sys.executable, *orphans.command("reproduction.running.pool_worker", str(number))]
            self.process = subprocess.Popen(asked, stdin=subprocess.DEVNULL, pass_fds=[number])
        finally:
            self._theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with contextlib.suppress(ConnectionError):  # it died already: `listen` tells
            for told in self._told:
                self.pipe.send(told)

    def give(self, job: int, jobs: Sequence[Any]) -> None:
        self.job, self._began = job, time.monotonic()
        with contextlib.suppress(ConnectionError):  # it died between two jobs: `listen` tells
            self.pipe.send(jobs[job])

    def listen(self, step: Callable[..., None]) -> Ended | None:
        """Take one message; the job's end if that is what it was."""
        try:
            kind, *what = self.pipe.recv()
        except (EOFError, ConnectionError):
            kind, what = "failed", [f"its process ended by itself ({_ending(self.process.wait())})"]
        if kind == "step":
            step(*what[:3], note=what[3])
            return None
        self.left = kind == "failed"
        job, self.job = self.job, None
        value, error = (what[0], None) if kind == "done" else (None, what[0])
        return Ended(job=job, value=value, error=error, seconds=time.monotonic() - self._began)

    def stop(self) -> None:
        """Let a worker without a job go."""
        self.pipe.close()
        self.end(PATIENCE)

    def end(self, patience: float) -> None:
        """Wait so many seconds for its end, and then bring it about."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _ready(crew: dict[int, _Worker]) -> list[int]:
    readable = connection.wait([worker.pipe for worker in crew.values()]) if crew else []  # for none it would never end
    return [slot for slot, worker in crew.items() if worker.pipe in readable]


def _stop_all(crew: dict[int, _Worker]) -> None:
    started = [worker for worker in crew.values() if worker.process is not None]
    for worker in started:
        worker.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for worker in started:
        worker.end(max(0.0, deadline - time.monotonic()))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    why = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{why}"
