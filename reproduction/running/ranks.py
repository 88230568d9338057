"""A cell's training as several ranks: the parent starts and watches them, and hears from the first how far they are.

    parent ── cell ──> file ──> rank 0, rank 1, …      python -m reproduction.running.ranks <folder>
    parent <── steps ── socket ── rank 0
    parent <── figures or error ── file ── the first rank that ended

What a rank raises the parent raises, so that a cell ends alike with and without ranks. The run's folder is the parent's
affair: it outlives the ranks, and marks what became of them. Left out: ranks on other machines.
"""

import contextlib
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduction.cli import is_input_error, quiet, shows_traceback
from reproduction.running.progress import STEP_SECONDS, Silent, Telling
from reproduction.system.atomic import scratch_folder
from reproduction.training.checkpoints import drop_unfinished
from reproduction.training.launching import RanksFailed, giving_way, rank, run_ranks

if TYPE_CHECKING:
    from reproduction.cells.cell import Cell

CELL, SOCKET, OUTCOME = "cell.pickle", "steps", "outcome.pickle"
LONGEST = 75
"""Characters of a folder for temporary files in which a socket has room: its path may have 107 in all."""


def train_in_ranks(cell: "Cell", progress: Silent) -> dict[str, Any]:
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
                run_ranks(__name__, [str(folder)], folder=folder, **own)
        except RanksFailed:
            if not (folder / OUTCOME).exists():
                raise
        finally:
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


def _main(folder: Path) -> None:
    from reproduction.cells.cell import train_here

    cell = pickle.loads((folder / CELL).read_bytes())
    progress = Silent()
    if rank() == 0:
        pipe = connection.Client(str(folder / SOCKET), family="AF_UNIX")

        def send(*step: object) -> None:
            with contextlib.suppress(OSError):  # the parent is gone, and this rank about to be
                pipe.send(step)

        progress = Telling(send)
    figures = train_here(cell, progress)
    if rank() == 0:
        _leave(figures, folder)


def _leave(outcome: object, folder: Path) -> None:
    """Leave the outcome for the parent, there whole or not at all."""
    aside = folder / f"{OUTCOME}.{rank()}"
    try:
        pickle.loads(pickled := pickle.dumps(outcome))
    except Exception:  # an exception of some library that cannot be handed on: its words can
        pickled = pickle.dumps(ValueError(str(outcome)))
    aside.write_bytes(pickled)
    aside.replace(folder / OUTCOME)


def _end(code: int) -> None:
    """Leave at once: a connection to ranks that are gone or wait would hold up, or crash, an orderly exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, also where it waits in a library that answers no signal
    quiet()
    place = Path(sys.argv[1])
    try:
        with giving_way():
            _main(place)
    except Exception as error:
        if shows_traceback(error):
            traceback.print_exc()
        own = error if is_input_error(error) else RanksFailed(f"rank {rank()}: {type(error).__name__}: {error}")
        _leave(own, place)
        _end(1)
    _end(0)
