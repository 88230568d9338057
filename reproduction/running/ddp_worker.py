"""Process of each rank of a cell's training: runs `train_here` and writes its outcome for the parent.

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
        with contextlib.suppress(OSError):  # the parent has ended, and ends this rank
            pipe.send(step)

    _leave(train_here(cell, ForwardedProgress(send)), folder)


def _leave(outcome: object, folder: Path) -> None:
    """Write the outcome for the parent atomically, unless another rank was first: its error is the cause of ours."""
    aside = folder / f"{OUTCOME}.{rank()}"
    try:
        pickle.loads(pickled := pickle.dumps(outcome))
    except Exception:  # a library's exception may not be picklable; its message is
        pickled = pickle.dumps(ValueError(str(outcome)))
    aside.write_bytes(pickled)
    with contextlib.suppress(FileExistsError):
        os.link(aside, folder / OUTCOME)


def _end(code: int) -> None:
    """Exit at once: connections to ended or waiting ranks would delay or crash a normal exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it at once, also within a library's native code
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
