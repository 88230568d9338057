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
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from typing import Any

from idlora.pipeline.progress import Silent, Telling
from idlora.pipeline.shell import quiet

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
    function: Callable[[Any, Silent], Any],
    jobs: Sequence[Any],
    *,
    workers: int,
    threads: int,
    names: Sequence[str],
    progress: Silent,
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

    def __init__(self, function: Callable[[Any, Silent], Any], slot: int, *, alone: bool):
        context = multiprocessing.get_context("spawn")  # a forked torch would share its threads' locks
        self.pipe, self._theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(function, self._theirs), kwargs={"slot": slot, "alone": alone}
        )
        self.job: int | None = None
        self.left = False
        self._began = 0.0

    def start(self) -> None:
        resource_tracker.ensure_running()  # or starting it within start() would unblock the signal again
        # A Ctrl-C in a terminal goes to every process there: ours passes it on, in its own way and once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            self._theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def give(self, job: int, jobs: Sequence[Any]) -> None:
        self.job, self._began = job, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it died between two jobs: `listen` tells
            self.pipe.send(jobs[job])

    def listen(self, step: Callable[..., None]) -> Ended | None:
        """Take one message; the job's end if that is what it was."""
        try:
            kind, *what = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            kind, what = "failed", [f"its process ended by itself ({_ending(self.process.exitcode)})"]
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
        self.process.join(PATIENCE)
        self.kill()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _ready(crew: dict[int, _Worker]) -> list[int]:
    readable = connection.wait([worker.pipe for worker in crew.values()]) if crew else []  # for none it would never end
    return [slot for slot, worker in crew.items() if worker.pipe in readable]


def _stop_all(crew: dict[int, _Worker]) -> None:
    started = [worker for worker in crew.values() if worker.process.pid is not None]
    for worker in started:
        worker.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for worker in started:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.kill()


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    why = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{why}"


def _serve(function: Callable[[Any, Silent], Any], pipe: connection.Connection, *, slot: int, alone: bool) -> None:
    """A worker's life: jobs from the pipe until it closes, a job fails, or the parent interrupts or dies."""
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the parent's interrupt
        threading.Thread(target=_die_with_parent, daemon=True).start()
        quiet()
        if not alone:
            _take_one_gpu(slot)
        for job in _received(pipe):
            try:
                pipe.send(("done", function(job, Telling(lambda *step: pipe.send(("step", *step))))))
            except Exception as error:
                pipe.send(("failed", f"{type(error).__name__}: {error}"))
                return
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # what was at work has marked itself


def _received(pipe: connection.Connection) -> Iterator[Any]:
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


def _die_with_parent() -> None:
    """However the parent ends: what it started must not work on unseen, beside the next command."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _take_one_gpu(slot: int) -> None:
    """On a machine of several GPUs the workers take turns: this process sees one of them."""
    import torch

    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[slot % count]
