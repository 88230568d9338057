"""What each rank of a cell's training runs: `train_here`, leaving its outcome for the parent.

python -m reproduction.running.ddp_worker <folder>      started by `reproduction.running.ddp`
"""

import contextlib
import os
import pickle
import signal
import sys
import traceback
from multiprocessing import connection
from pathlib import Path

from reproduction.cli import is_input_error, quiet, shows_traceback
from reproduction.running.ddp import CELL, OUTCOME, SOCKET
from reproduction.running.progress import ForwardedProgress, NullProgress
from reproduction.running.train import train_here
from reproduction.training.launching import RanksFailed, delayed_errors, rank


def _train(folder: Path) -> None:
    cell = pickle.loads((folder / CELL).read_bytes())
    if rank() > 0:
        train_here(cell, NullProgress())
        return
    pipe = connection.Client(str(folder / SOCKET), family="AF_UNIX")

    def send(*step: object) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and this rank about to be
            pipe.send(step)

    _leave(train_here(cell, ForwardedProgress(send)), folder)


def _leave(outcome: object, folder: Path) -> None:
    """Write the outcome for the parent, whole or not at all."""
    aside = folder / f"{OUTCOME}.{rank()}"
    try:
        pickle.loads(pickled := pickle.dumps(outcome))
    except Exception:  # an exception of some library that cannot be pickled: its words can
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
        with delayed_errors():
            _train(place)
    except Exception as error:
        if shows_traceback(error):
            traceback.print_exc()
        own = error if is_input_error(error) else RanksFailed(f"rank {rank()}: {type(error).__name__}: {error}")
        _leave(own, place)
        _end(1)
    _end(0)
