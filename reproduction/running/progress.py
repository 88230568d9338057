"""Progress displays of running cells: how many are done, which are running, how much time is left."""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

STEP_SECONDS = 0.2
"""Minimum seconds between two steps that a worker process forwards."""


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
        if time.monotonic() - self._last >= STEP_SECONDS:
            self._last = time.monotonic()
            self._send(phase, done, total, note)


class LineProgress(NullProgress):
    """One plain line for each finished cell, for logs and pipes."""

    def __init__(self, total: int, done: int):
        self._total, self._done, self._before, self._start = total, done, done, time.monotonic()

    def _time_left(self) -> str:
        """Return the mean time of the cells finished since the start times the number of remaining cells."""
        each = (time.monotonic() - self._start) / (self._done - self._before)
        minutes, seconds = divmod(int(each * (self._total - self._done)), 60)
        return f"{minutes}:{seconds:02d}"

    def finished(self, name: str, note: str = "") -> None:
        self._done += 1
        print(f"[{self._done}/{self._total}] {name} {note} (left: about {self._time_left()})", flush=True)


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
    """Return a live display if stderr is a terminal, else one line per finished cell; a silent one if not ``shown``."""
    if not shown:
        return NullProgress()
    return LiveProgress(total, done, Console(stderr=True)) if sys.stderr.isatty() else LineProgress(total, done)
