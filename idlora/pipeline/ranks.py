"""A cell's training as several ranks: the parent starts and watches them, and hears from the first how far they are.

    parent ── cell ──> file ──> rank 0, rank 1, …      python -m idlora.pipeline.ranks <folder>
    parent <── steps ── socket ── rank 0
"""

import contextlib
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING

from idlora.pipeline.progress import STEP_SECONDS, Silent, Telling
from idlora.pipeline.shell import is_input_error, quiet
from idlora.training.launching import RanksFailed, end_with_launcher, rank, run_ranks

if TYPE_CHECKING:
    from idlora.pipeline.cell import Cell

CELL, SOCKET = "cell.pickle", "steps"


def train_in_ranks(cell: "Cell", progress: Silent) -> None:
    """Train the cell in as many processes as its launch has, and return when it is done.

    Raises `RanksFailed`, with the reason that the run's status gives, where a rank failed.
    """
    with tempfile.TemporaryDirectory(prefix="idlora-") as place:
        folder = Path(place)
        (folder / CELL).write_bytes(pickle.dumps(cell))
        try:
            with _steps_shown(folder / SOCKET, progress):
                run_ranks(__name__, [place], processes=cell.launch.processes, threads=cell.threads)
        except RanksFailed as error:
            reason = cell.run.status.get("reason") if cell.run.state in ("oom", "failed") else None
            raise RanksFailed(": ".join(filter(None, [str(error), reason])), error.code) from None


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
    from idlora.pipeline.cell import train_cell

    cell = pickle.loads((folder / CELL).read_bytes())
    if rank() > 0:
        train_cell(cell)
        return
    pipe = connection.Client(str(folder / SOCKET), family="AF_UNIX")

    def send(*step: object) -> None:
        with contextlib.suppress(OSError):  # the parent is gone: `end_with_launcher` sees to it
            pipe.send(step)

    train_cell(cell, Telling(send))


def _end(code: int) -> None:
    """Leave at once: a connection to ranks that are gone or wait would hold up, or crash, an orderly exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_launcher()
    quiet()
    try:
        _main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        _end(130)  # the parent says so
    except Exception as error:
        if rank() > 0:
            time.sleep(1.0)  # what all ranks stumble over the first one tells, and the launcher then ends the others
        if is_input_error(error):
            print(f"error: {error}", file=sys.stderr)
            _end(2)
        traceback.print_exc()
        _end(1)
    _end(0)
