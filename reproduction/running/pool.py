"""Parallel jobs in a few worker processes, each of which runs one job after another.

    parent ── job ──> worker      one pipe each way; a worker has one job at a time
    parent <── step, done, failed ──

A worker keeps what it has loaded and sees one GPU. A job that raises ends its process, and the next job gets a fresh
one, so that a broken CUDA context is not reused; a process that dies (out of memory, a crash in native code) also fails
only its job, whereas it would break the whole pool of `concurrent.futures`. Workers do not outlive the parent.

    python -m reproduction.running.pool <descriptor of the pipe>      command of a worker
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

from reproduction.cli import quiet
from reproduction.running.progress import ForwardedProgress, NullProgress
from reproduction.system import orphans
from reproduction.training.launching import visible_gpus

PATIENCE = 20.0
"""Seconds that an interrupted worker has to record its job's state before it is killed."""

Function = Callable[[Any, NullProgress], Any]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One job's result after ``seconds``: its return value ``value``, or the reason ``error`` of its failure."""

    job: int
    value: Any
    error: str | None
    seconds: float


def run_jobs(
    function: Function,
    jobs: Sequence[Any],
    *,
    workers: int,
    threads: int,
    names: Sequence[str],
    progress: NullProgress,
    ended: Callable[[Ended], None],
    more: Callable[[Ended], Iterable[tuple[Any, str]]] = lambda end: (),
) -> None:
    """Call ``function(job, progress)`` for every job in order, ``workers`` at a time.

    An interrupt, or an error of ``ended``, interrupts the workers, waits until they have recorded their jobs' states,
    and is re-raised.

    Args:
        function: importable by its name; its jobs and return values must be picklable.
        jobs: arguments of the function.
        workers: number of processes.
        threads: threads of each worker's libraries, unless OMP_NUM_THREADS is set.
        names: names of the jobs in ``progress``.
        progress: display of the job and the steps of each worker.
        ended: called in this process for each job, in the order in which they end.
        more: returns the jobs that follow from a finished one, with their names; they run next.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # must be set before a worker imports numpy
    jobs, names = list(jobs), list(names)
    waiting, crew = deque(range(len(jobs))), dict[int, _Worker]()
    try:
        while waiting or crew:
            for slot in range(workers):
                if waiting and slot not in crew:
                    crew[slot] = _Worker()
                    crew[slot].start(function, slot, alone=workers == 1)
                if waiting and crew[slot].job is None:
                    job = waiting.popleft()
                    crew[slot].give(job, jobs[job])
                    progress.cell(names[job], slot=slot)
            for slot in [slot for slot, worker in crew.items() if worker.job is None]:
                crew.pop(slot).stop()
            pipes = {worker.pipe: slot for slot, worker in crew.items()}
            for slot in [pipes[pipe] for pipe in connection.wait(pipes)] if pipes else []:
                end = crew[slot].listen(lambda *step, note, slot=slot: progress.step(*step, note=note, slot=slot))
                if end is None:
                    continue
                if end.error is not None:
                    crew.pop(slot).stop()
                ended(end)
                for job, name in more(end):
                    waiting.appendleft(len(jobs))
                    jobs.append(job)
                    names.append(name)
    finally:
        for worker in crew.values():
            worker.interrupt()
        deadline = time.monotonic() + PATIENCE
        for worker in crew.values():
            worker.stop(deadline - time.monotonic())


class _Worker:
    """One process and the parent's end of its pipe. ``job`` is the index of its current job, None if idle."""

    def __init__(self) -> None:
        self.pipe, self._theirs = multiprocessing.Pipe()
        self.process: subprocess.Popen | None = None
        self.job: int | None = None
        self._began = 0.0

    def start(self, function: Function, slot: int, *, alone: bool) -> None:
        # A terminal sends Ctrl-C to every process; workers block it, and the parent interrupts them once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            descriptor = self._theirs.fileno()
            command = [sys.executable, *orphans.command("reproduction.running.pool", str(descriptor))]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[descriptor])
        finally:
            self._theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._send(sys.path, sys.argv)
        self._send(function, slot, alone)

    def _send(self, *message: Any) -> None:
        with contextlib.suppress(ConnectionError):  # `listen` reports that the process died
            self.pipe.send(message)

    def give(self, index: int, job: Any) -> None:
        self.job, self._began = index, time.monotonic()
        self._send(job)

    def listen(self, step: Callable[..., None]) -> Ended | None:
        """Receive one message; return the job's end if it was the last one."""
        try:
            kind, *what = self.pipe.recv()
        except (EOFError, ConnectionError):
            kind, what = "failed", [f"its process ended by itself ({_ending(self.process.wait())})"]
        if kind == "step":
            step(*what[:3], note=what[3])
            return None
        job, self.job = self.job, None
        value, error = (what[0], None) if kind == "done" else (None, what[0])
        return Ended(job=job, value=value, error=error, seconds=time.monotonic() - self._began)

    def interrupt(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def stop(self, patience: float = PATIENCE) -> None:
        """End an idle worker by closing its pipe; an interrupted one may still send. Kill it if it is late."""
        if self.job is None or self.process is None:
            self.pipe.close()
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, patience))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.pipe.close()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    why = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{why}"


def _work(pipe: connection.Connection) -> None:
    """Run jobs from the pipe until it closes, a job fails, or the parent interrupts."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, EOFError):  # the job has recorded its state
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the parent's interrupt
        quiet()
        sys.path[:], sys.argv[:] = pipe.recv()
        function, slot, alone = pipe.recv()
        if not alone:
            _take_one_gpu(slot)
        while True:
            (job,) = pipe.recv()
            try:
                pipe.send(("done", function(job, ForwardedProgress(lambda *step: pipe.send(("step", *step))))))
            except Exception as error:
                pipe.send(("failed", f"{type(error).__name__}: {error}"))
                return


def _take_one_gpu(slot: int) -> None:
    """Restrict this process to one GPU; workers take the machine's GPUs in turn."""
    if (count := visible_gpus()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[slot % count]


if __name__ == "__main__":
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)  # a job's subprocesses would keep the pipe open
    _work(connection.Connection(descriptor))
