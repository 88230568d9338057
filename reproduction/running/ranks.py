"""A cell's training as several ranks: the parent starts and watches them, and hears from the first how far they are.

    parent ── cell ──> file ──> rank 0, rank 1, …      python -m reproduction.running.rank_worker <folder>
    parent <── steps ── socket ── rank 0
    parent <── figures or error ── file ── the first rank that ended

What a rank raises the parent raises, so that a cell ends alike with and without ranks. The run's folder is the parent's
affair: it outlives the ranks, and marks what became of them. Left out: ranks on other machines.
"""

import contextlib
import pickle
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

from reproduction.cells.cell import Cell
from reproduction.running.progress import STEP_SECONDS, Silent
from reproduction.system.atomic import scratch_folder
from reproduction.training.launching import RanksFailed, run_ranks

WORKER = "reproduction.running.rank_worker"
"""The module that each rank runs."""

CELL, SOCKET, OUTCOME = "cell.pickle", "steps", "outcome.pickle"
"""In the folder that the ranks share: what they train, where the first tells its steps, what came of it."""

LONGEST = 75
"""Characters of a folder for temporary files in which a socket has room: its path may have 107 in all."""


def train_in_ranks(cell: Cell, progress: Silent) -> dict[str, Any]:
    """Train the cell in as many processes as its launch has, and return what `train_here` returns in the first.

    Raises what a rank raised where a user can put it right, and else `RanksFailed`: the rank has shown its traceback,
    or a signal killed it.
    """
    usual = tempfile.gettempdir()
    with scratch_folder(Path(usual if len(usual) < LONGEST else "/tmp")) as folder:
        (folder / CELL).write_bytes(pickle.dumps(cell))
        try:
            with _steps_shown(folder / SOCKET, progress):
                own = {"processes": cell.launch.processes, "threads": cell.threads}
                run_ranks(WORKER, [str(folder)], folder=folder, **own)
        except RanksFailed:
            if not (folder / OUTCOME).exists():
                raise
        finally:
            from reproduction.training.checkpoints import drop_unfinished  # torch, which the launcher has imported

            # Where one rank fails to write its part, another may go on writing: it is known to be over only here.
            drop_unfinished(cell.run.folder / "checkpoints")
        outcome = pickle.loads((folder / OUTCOME).read_bytes())
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextlib.contextmanager
def _steps_shown(address: Path, progress: Silent) -> Iterator[None]:
    with connection.Listener(str(address), family="AF_UNIX") as listener:

        def listen() -> None:
            with contextlib.suppress(OSError, EOFError), listener.accept() as pipe:
                while True:
                    phase, done, total, note = pipe.recv()
                    progress.step(phase, done, total, note=note)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield
    thread.join(STEP_SECONDS)
