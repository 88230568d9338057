"""Progress displays of running cells: how many are done, which are running, how much time is left."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

STEP_SECONDS = 0.2
"""Minimum seconds between two steps that a worker process forwards."""

LINE_SECONDS = 5.0
"""Minimum seconds between a line of a log and the next step in it."""

TRAINING = "training"
"""Phase whose steps are those of the optimiser."""


class NullProgress:
    """Interface of a progress display, a context manager; this class shows nothing.

    ``slot`` identifies one of several cells that run in parallel.
    """

    def __enter__(self) -> "NullProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cell(self, name: str, *, slot: int = 0) -> None:
        """Show that a cell starts."""

    def step(self, phase: str, done: int, total: int, *, note: str = "", slot: int = 0) -> None:
        """Show ``done`` of ``total`` in a phase of the running cell; called often."""

    def finished(self, name: str, note: str = "") -> None:
        """Show that the cell is done."""


class ForwardedProgress(NullProgress):
    """Progress in a worker process, which passes some of the steps to ``send(phase, done, total, note)``."""

    def __init__(self, send: Callable[[str, int, int, str], None]):
        self._send, self._last = send, 0.0

    def step(self, phase: str, done: int, total: int, *, note: str = "", slot: int = 0) -> None:
        if done == total or time.monotonic() - self._last >= STEP_SECONDS:
            self._last = time.monotonic()
            self._send(phase, done, total, note)


@dataclass
class _Work:
    """A running cell: when it began, its phase with the time and the count at which that began, and its last note."""

    name: str
    began: float
    phase: str = ""
    since: float = 0.0
    first: int = 0
    note: str = ""

    def describe(self, done: int, total: int, note: str) -> str:
        """Return the phase, ``done`` of ``total``, the note, the time of one and the time left."""
        parts = [f"{self.name}: {self.phase} {done}/{total}".removeprefix(": "), note]
        if done > self.first:
            each = (time.monotonic() - self.since) / (done - self.first)
            unit = "s/step" if self.phase == TRAINING else "s each"
            parts += [f"{each:.2g} {unit}" if each < 10 else f"{each:.0f} {unit}"]
            parts += [f"{_clock(each * (total - done))} left"]
        return ", ".join(filter(None, parts))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


class LineProgress(NullProgress):
    """Plain lines for logs and pipes: one for each finished cell, and one every `LINE_SECONDS` from a running one."""

    def __init__(self, total: int, done: int):
        self._total, self._done, self._before, self._start = total, done, done, time.monotonic()
        self._printed, self._running = self._start, dict[int, _Work]()

    def cell(self, name: str, *, slot: int = 0) -> None:
        self._running[slot] = _Work(name, time.monotonic())

    def step(self, phase: str, done: int, total: int, *, note: str = "", slot: int = 0) -> None:
        now = time.monotonic()
        work = self._running.setdefault(slot, _Work("", now))
        if phase != work.phase:
            work.phase, work.since, work.first = phase, now, done
        work.note = note or work.note
        if now - self._printed >= LINE_SECONDS:
            self._print(work.describe(done, total, note))

    def finished(self, name: str, note: str = "") -> None:
        self._done += 1
        work = next((work for work in self._running.values() if work.name == name), _Work(name, self._start))
        parts = [note or f"{time.monotonic() - work.began:.0f} s", work.note]
        if self._done < self._total:
            parts.append(f"about {self._time_left()} left for all")
        self._print(f"[{self._done}/{self._total}] {name}: {', '.join(filter(None, parts))}")

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        print(line, flush=True)

    def _time_left(self) -> str:
        """Return the mean time of the cells finished since the start times the number of remaining cells."""
        return _clock((time.monotonic() - self._start) / (self._done - self._before) * (self._total - self._done))


class LiveProgress(LineProgress):
    """Live terminal display: a bar for all cells with the time left, and one for each running cell."""

    def __init__(self, total: int, done: int, console: Console):
        super().__init__(total, done)
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._cells = self._bars.add_task("cells", total=total, completed=done, note="")
        self._work: dict[int, TaskID] = {}

    def __enter__(self) -> "LiveProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def cell(self, name: str, *, slot: int = 0) -> None:
        if slot not in self._work:
            self._work[slot] = self._bars.add_task("", total=None, note="")
        self._bars.reset(self._work[slot], description=name, total=None, note="starting")

    def step(self, phase: str, done: int, total: int, *, note: str = "", slot: int = 0) -> None:
        self._bars.update(self._work[slot], completed=done, total=total, note=f"{phase} {note}")

    def finished(self, name: str, note: str = "") -> None:
        self._done += 1
        self._console.print(f"{name} {note}", highlight=False, markup=False)
        self._bars.update(self._cells, completed=self._done, note=f"about {self._time_left()} left")


def display(total: int, done: int = 0, *, shown: bool = True) -> NullProgress:
    """Return a live display on a terminal, lines if the output goes to a file or a pipe, none if not ``shown``."""
    if not shown:
        return NullProgress()
    live = sys.stderr.isatty() and sys.stdout.isatty()
    return LiveProgress(total, done, Console(stderr=True)) if live else LineProgress(total, done)
