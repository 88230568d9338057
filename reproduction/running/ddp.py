"""A cell's training as several ranks: the parent starts and watches them, and shows the steps of the first.

    parent ── cell ──> file ──> rank 0, rank 1, …      python -m reproduction.running.ddp_worker <folder>
    parent <── steps ── socket ── rank 0
    parent <── figures or error ── file ── the first rank that ended

The parent raises what a rank raises, and marks in the run's folder how the training ended: it outlives the ranks.
"""

import contextlib
import logging
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

CELL, SOCKET, OUTCOME = "cell.pickle", "steps", "outcome.pickle"
"""In the folder that the ranks share: what they train, where the first sends its steps, what came of it."""

LONGEST = 75
"""Longest path of a temporary folder that leaves room for a socket's, which may have 107 characters."""


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
    """Run the worker module on a folder as several ranks on this machine, with accelerate's launcher, and wait.

    Ctrl-C and SIGTERM end every rank, and so does the death of one, or of this process.

    Raises:
        RanksFailed: a rank failed; it has printed why, unless a signal killed it.
        KeyboardInterrupt: this process was interrupted; the ranks have been.
    """
    from accelerate.commands.launch import launch_command_parser, multi_gpu_launcher
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = launch_command_parser().parse_args([
        "--multi_gpu", f"--num_processes={processes}", "--num_machines=1", "--main_process_port=0",
        "--mixed_precision=no", "--dynamo_backend=no", f"--num_cpu_threads_per_process={threads}",
        f"--log_dir={folder}", *orphans.command("reproduction.running.ddp_worker", str(folder)),
    ])  # fmt: skip
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _quiet_launcher()
    try:
        multi_gpu_launcher(options)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        number, first = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if first.exitcode >= 0:
            raise RanksFailed(f"rank {number} of {processes} ended with exit code {first.exitcode}") from None
        name = signal.Signals(-first.exitcode).name
        why = ", perhaps for want of memory" if name == "SIGKILL" else ""
        raise RanksFailed(
            f"rank {number} of {processes} was killed by {name}{why}; the same command goes on from the last checkpoint"
        ) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _quiet_launcher() -> None:
    """Silence torchrun's tables about a rank's end: the rank has printed a sentence or a traceback."""
    import torch.distributed.run  # noqa: F401, which makes its loggers, each with a level of its own

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)


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
