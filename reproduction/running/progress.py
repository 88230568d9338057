"""What a person sees while cells are at work: how many are done, which one is at work, how long it will take."""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

STEP_SECONDS = 0.2
"""A process at work tells another one of its steps at most this often."""


class NullProgress:
    """The interface of a progress display, a context manager; this one shows nothing.

    ``slot`` tells apart cells that are at work side by side.
    """

    def __enter__(self) -> "NullProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cell(self, name: str, *, slot: int = 0) -> None:
        """A cell starts."""

    def step(self, phase: str, done: int, total: int, *, note: str = "", slot: int = 0) -> None:
        """``done`` of ``total`` in a phase of the cell at work; called often."""

    def finished(self, name: str, note: str = "") -> None:
        """The cell is done."""


class Telling(NullProgress):
    """The side of a process that has no display: ``send(phase, done, total, note)`` for some of the steps."""

    def __init__(self, send: Callable[[str, int, int, str], None]):
        self._send, self._told = send, 0.0

    def step(self, phase: str, done: int, total: int, *, note: str = "", slot: int = 0) -> None:
        if time.monotonic() - self._told >= STEP_SECONDS:
            self._told = time.monotonic()
            self._send(phase, done, total, note)


class Lines(NullProgress):
    """One plain line for each finished cell, for logs and pipes."""

    def __init__(self, total: int, done: int):
        self._total, self._done, self._before, self._start = total, done, done, time.monotonic()

    def finished(self, name: str, note: str = "") -> None:
        self._done += 1
        each = (time.monotonic() - self._start) / (self._done - self._before)
        left = each * (self._total - self._done)
        print(f"[{self._done}/{self._total}] {name} {note} (left: about {_clock(left)})", flush=True)


class Display(NullProgress):
    """A live display on a terminal: a bar for the cells with the time left, and one for each cell at work.

    The time left is the mean time of the cells finished since it started times the cells that remain.
    """

    def __init__(self, total: int, done: int, console: Console):
        self._console, self._before, self._start = console, done, time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._cells = self._bars.add_task("cells", total=total, completed=done, note="")
        self._work: dict[int, TaskID] = {}
        self._live = Live(self._bars, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> "Display":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def cell(self, name: str, *, slot: int = 0) -> None:
        if slot not in self._work:
            self._work[slot] = self._bars.add_task("", total=None, note="")
        self._bars.reset(self._work[slot], description=name, total=None, note="starting")

    def step(self, phase: str, done: int, total: int, *, note: str = "", slot: int = 0) -> None:
        self._bars.update(self._work[slot], completed=done, total=total, note=f"{phase} {note}")

    def finished(self, name: str, note: str = "") -> None:
        self._console.print(f"{name} {note}", highlight=False, markup=False)
        self._bars.advance(self._cells)
        task = next(task for task in self._bars.tasks if task.id == self._cells)
        each = (time.monotonic() - self._start) / (task.completed - self._before)
        left = each * (task.total - task.completed)
        self._bars.update(self._cells, note=f"about {_clock(left)} left")


def display(total: int, done: int = 0, *, shown: bool = True) -> NullProgress:
    """The live display where standard error is a terminal, else one line a finished cell; not ``shown``, neither."""
    if not shown:
        return NullProgress()
    console = Console(stderr=True)
    return Display(total, done, console) if sys.stderr.isatty() else Lines(total, done)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
