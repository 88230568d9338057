"""A table's cells, planned as the configs want them now, and filled one after the other in one process."""

import contextlib
import fcntl
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from idlora.pipeline.cell import Cell, run_cell
from idlora.pipeline.progress import display
from idlora.pipeline.typed import ConfigError
from idlora.report.grid import CellKey


@dataclass(frozen=True)
class Plan:
    """(experiment, method, seed) → cell. Two keys may share a run: an untuned base is one for all its tasks."""

    cells: Mapping[CellKey, Cell]

    @property
    def runs(self) -> dict[CellKey, str]:
        """Each key's run folder, whose name holds the digest of the config."""
        return {key: cell.run.name for key, cell in self.cells.items()}

    @property
    def evaluations(self) -> dict[str, str]:
        """benchmark → name of the evaluation's folder, the same in every cell of the table.

        Raises `ConfigError` where two cells would evaluate one benchmark under different protocols.
        """
        names: dict[str, str] = {}
        for key, cell in self.cells.items():
            for protocol in cell.protocols:
                name = cell.subject.eval_folder(protocol).name
                if names.setdefault(protocol.benchmark, name) != name:
                    raise ConfigError(
                        f"{'/'.join(map(str, key))} evaluates {protocol.benchmark} under another protocol"
                    )
        return names

    def restricted(self, *, experiments: Container[str] | None, methods: Container[str] | None) -> dict[CellKey, Cell]:
        """The cells of these experiments and methods; None is all. Raises `ConfigError` where nothing is left."""
        chosen = {
            key: cell
            for key, cell in self.cells.items()
            if (experiments is None or key[0] in experiments) and (methods is None or key[1] in methods)
        }
        if not chosen:
            raise ConfigError(f"no cell of the table has experiments={experiments} and methods={methods}")
        return chosen


@dataclass
class Outcome:
    """What filling came to: the seconds it took, the cells computed, and the ones that failed with their reasons."""

    seconds: float = 0.0
    computed: int = 0
    failed: dict[CellKey, str] = field(default_factory=dict)


def fill(cells: Mapping[CellKey, Cell], *, folder: Path) -> Outcome:
    """Run every cell that is not complete, in order; a cell that fails is told and the others go on.

    ``folder`` is the scale's results folder, locked meanwhile, so that two commands never work on one run. An
    interrupt leaves at once, with the cell at work marked.

    Raises `ConfigError` where another process holds the lock.
    """
    outcome, start = Outcome(), time.monotonic()
    waiting = {key: cell for key, cell in cells.items() if not cell.complete}
    with _locked(folder), display(len(cells), done=len(cells) - len(waiting)) as progress:
        for key, cell in waiting.items():
            progress.cell(cell.title)
            began = time.monotonic()
            try:
                run_cell(cell, progress)
            except Exception as error:
                outcome.failed[key] = f"{type(error).__name__}: {error}"
                progress.finished(cell.title, f"FAILED: {outcome.failed[key]}")
            else:
                outcome.computed += 1
                progress.finished(cell.title, f"{time.monotonic() - began:.0f} s")
    outcome.seconds = time.monotonic() - start
    return outcome


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another command is at work in {folder}; wait for it, or stop it first") from None
        yield
