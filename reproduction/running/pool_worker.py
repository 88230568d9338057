"""The other half of `reproduction.running.pool`: what one of its processes does until it is let go.

    python -m reproduction.running.pool_worker <number of the pipe's descriptor>

The pipe gives the parent's sys.path and sys.argv, then the function, and then jobs.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from reproduction.cli import quiet
from reproduction.running.progress import Telling


def serve(pipe: Connection) -> None:
    """A worker's life: jobs from the pipe until it closes, a job fails, or the parent interrupts."""
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the parent's interrupt
        quiet()
        sys.path[:], sys.argv[:] = pipe.recv()
        function, slot, alone = pipe.recv()
        if not alone:
            _take_one_gpu(slot)
        for job in _received(pipe):
            try:
                pipe.send(("done", function(job, Telling(lambda *step: pipe.send(("step", *step))))))
            except Exception as error:
                pipe.send(("failed", f"{type(error).__name__}: {error}"))
                return
    except (KeyboardInterrupt, BrokenPipeError, EOFError):
        pass  # what was at work has marked itself


def _received(pipe: Connection) -> Iterator[Any]:
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


def _take_one_gpu(slot: int) -> None:
    """On a machine of several GPUs the workers take turns: this process sees one of them."""
    import torch

    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[slot % count]


if __name__ == "__main__":
    number = int(sys.argv[1])
    os.set_inheritable(number, False)  # what a job starts would keep the pipe open
    serve(Connection(number))
