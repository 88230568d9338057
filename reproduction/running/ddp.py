"""A cell's training as several ranks: the parent starts and watches them, and hears from the first how far they are.

    parent ── cell ──> file ──> rank 0, rank 1, …      python -m reproduction.running.ddp_worker <folder>
    parent <── steps ── socket ── rank 0
    parent <── figures or error ── file ── the first rank that ended

What a rank raises the parent raises, so that a cell ends alike with and without ranks. The run's folder is the parent's
affair: it outlives the ranks, and marks what became of them. Left out: restarting (the same command goes on from the
last checkpoint), and ranks on other machines.
"""

import contextlib
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

from reproduction.cells.cell import Cell
from reproduction.running.progress import STEP_SECONDS, NullProgress
from reproduction.system import orphans
from reproduction.system.atomic import scratch_folder
from reproduction.training.launching import RanksFailed

WORKER = "reproduction.running.ddp_worker"
"""The module that each rank runs."""

CELL, SOCKET, OUTCOME = "cell.pickle", "steps", "outcome.pickle"
"""In the folder that the ranks share: what they train, where the first tells its steps, what came of it."""

LONGEST = 75
"""Characters of a folder for temporary files in which a socket has room: its path may have 107 in all."""


def train_in_ranks(cell: Cell, progress: NullProgress) -> dict[str, Any]:
    """Train the cell in as many processes as its launch has, and return what `train_here` returns in the first.

    Raises what a rank raised where a user can put it right, and else `RanksFailed`: the rank has shown its traceback,
    or a signal killed it.
    """
    usual = tempfile.gettempdir()
    with scratch_folder(Path(usual if len(usual) < LONGEST else "/tmp")) as folder:
        (folder / CELL).write_bytes(pickle.dumps(cell))
        try:
            with _steps_shown(folder / SOCKET, progress):
                _run_ranks(folder, processes=cell.launch.processes, threads=cell.threads)
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


def _run_ranks(folder: Path, *, processes: int, threads: int) -> None:
    """Run `WORKER` on a folder as several ranks on this machine, and wait for all of them.

    accelerate's launcher starts them, with files of its own in the folder, and watches them: Ctrl-C and SIGTERM end
    every rank, and so does the death of one, or of this process. Each has ``threads`` for its libraries. Standard
    output and error are this process's own.

    Raises:
        RanksFailed: a rank failed; it has told why, unless a signal killed it.
        KeyboardInterrupt: this process was interrupted; the ranks have been.
    """
    from accelerate.commands.launch import launch_command_parser, multi_gpu_launcher
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    launcher = [
        "--multi_gpu", f"--num_processes={processes}", "--num_machines=1", "--main_process_port=0",
        "--mixed_precision=no", "--dynamo_backend=no", f"--num_cpu_threads_per_process={threads}",
        f"--log_dir={folder}",
    ]  # fmt: skip
    options = launch_command_parser().parse_args([*launcher, *orphans.command(WORKER, str(folder))])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _quiet_launcher():
            multi_gpu_launcher(options)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        number, first = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if first.exitcode < 0:
            name = signal.Signals(-first.exitcode).name
            why = ", perhaps for want of memory" if name == "SIGKILL" else ""
            raise RanksFailed(
                f"rank {number} of {processes} was killed by {name}{why}; the same command goes on from the last "
                "checkpoint"
            ) from None
        raise RanksFailed(f"rank {number} of {processes} ended with exit code {first.exitcode}") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_launcher() -> Iterator[None]:
    """torchrun reports a rank's end in tables of its own; the rank has told it in a sentence or a traceback."""
    import logging

    import torch.distributed.run  # noqa: F401, which makes its loggers, each with a level of its own

    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.")]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _steps_shown(address: Path, progress: NullProgress) -> Iterator[None]:
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
