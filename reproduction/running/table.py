"""Parallel training and evaluation of the cells of tables in a few processes."""

import contextlib
import dataclasses
import fcntl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reproduction.cells.cell import Cell, distinct, unfinished_and_damaged
from reproduction.cells.config_schema import ConfigError
from reproduction.running.memory import gpus, room_on
from reproduction.running.pool import Ended, run_jobs
from reproduction.running.progress import display
from reproduction.running.train import run_cell
from reproduction.system.atomic import sweep
from reproduction.training.launching import Launch, visible_gpus


@dataclass
class Outcome:
    """Result of `fill`: its seconds, the computed cells, and the failed ones with their reasons."""

    seconds: float = 0.0
    computed: int = 0
    failed: dict[str, str] = field(default_factory=dict)


CELL_BYTES = 24e9
"""GPU memory in bytes for each of several parallel cells at the small scale. Most cells of SmolLM2-135M then have their
32 rows in one pass, and on an H200 more parallel cells were no faster."""


def fill(cells: Iterable[Cell], *, folder: Path, workers: int | None) -> Outcome:
    """Run every incomplete cell; a failed or unreadable cell is reported, and the others continue.

    Cells with the same run are computed once: tables share runs, and all tasks share an untuned base. An interrupt
    ends at once, after marking the running cells. After any end, including kill -9, the same call resumes.

    Args:
        cells: cells of any tables.
        folder: the scale's results folder, locked meanwhile, so that only one command fills it.
        workers: number of parallel cells; None is `as_many_as_fit`.

    Raises:
        ConfigError: another process holds the lock, or ``workers`` is below 1.
    """
    if workers is None:
        workers = as_many_as_fit()
    if not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers={workers} fill nothing: give the number of cells to work on side by side")
    outcome, start = Outcome(), time.monotonic()
    runs = distinct(cells)
    waiting, outcome.failed = unfinished_and_damaged(runs)
    waiting.sort(key=lambda cell: (-_tokens(cell), cell.train.seed))
    if workers > 1 and waiting and visible_gpus() > 0:  # each worker sees one GPU, which it may share
        sharing = workers_per_gpu(workers, waiting=len(waiting), gpus=visible_gpus())
        waiting = [cell if cell.sharded else on_part_of_a_gpu(cell, sharing) for cell in waiting]
    threads = max((cell.threads for cell in waiting), default=1)
    with _locked(folder), display(len(runs), done=len(runs) - len(waiting)) as progress:

        def run(cells: list[Cell], workers: int) -> None:
            titles = [cell.title for cell in cells]

            def ended(end: Ended) -> None:
                title = titles[end.job]
                if end.error is None:
                    outcome.computed += 1
                else:
                    outcome.failed[title] = end.error
                progress.finished(title, f"FAILED: {end.error}" if end.error else f"{end.seconds:.0f} s")

            run_jobs(run_cell, cells, workers=workers, threads=threads, names=titles, progress=progress, ended=ended)

        run([cell for cell in waiting if not cell.sharded], workers)
        run([cell for cell in waiting if cell.sharded], 1)  # a model over all GPUs runs alone, after the others
    outcome.seconds = time.monotonic() - start
    return outcome


def as_many_as_fit() -> int:
    """Return the number of parallel cells with `CELL_BYTES` of a GPU each: at least one per GPU; one without GPUs."""
    if not visible_gpus():
        return 1
    return sum(max(1, int(gpu.memory // CELL_BYTES)) for gpu in gpus())


def workers_per_gpu(workers: int, *, waiting: int, gpus: int) -> int:
    """Return how many workers share one GPU; at most as many workers run as cells wait."""
    return -(-min(workers, waiting) // gpus)


def on_part_of_a_gpu(cell: Cell, sharing: int) -> Cell:
    """Return the cell with one GPU, limited to an equal share of its memory if several workers use it."""
    memory_gb = cell.launch.memory_gb if sharing == 1 else room_on(gpus(), cell) / sharing / 1e9
    return dataclasses.replace(cell, launch=Launch(memory_gb=memory_gb))


def _tokens(cell: Cell) -> int:
    """Return a rough measure of a cell's time. The longest cells start first, so that none is left for the end; among
    equals the lowest seeds, so that an early stop leaves whole seeds.
    """
    trained = (cell.train.max_steps or 0) * cell.train.batch_size * cell.data.max_length
    generated = sum(protocol.samples * (protocol.max_new_tokens or 1) for protocol in cell.protocols)
    return generated + (trained if cell.method.kind != "none" else 0)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another command is at work in {folder}; wait for it, or stop it first") from None
        sweep(folder, below=True)
        yield
