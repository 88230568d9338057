"""Training of a cell in several ranks: the parent starts and watches them, and shows the steps of rank 0.

    parent ── cell ──> file ──> rank 0, rank 1, …      python -m reproduction.running.ddp_worker <folder>
    parent <── steps ── socket ── rank 0
    parent <── figures or error ── file ── the first rank that ended

The parent outlives the ranks: it raises a rank's error, and records in the run's folder how the training ended.
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
"""Files in the ranks' shared folder: the cell, the socket for the steps of rank 0, the result."""

LONGEST = 75
"""Maximum path length of a temporary folder: a socket's path is limited to 107 characters."""


def train_in_ranks(cell: Cell, progress: NullProgress) -> dict[str, Any]:
    """Train the cell in the processes of its launch, and return the result of `train_here` in rank 0.

    Raises a rank's error if a user can correct it, else `RanksFailed`: the rank has printed its traceback, or a signal
    killed it.
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

            # If one rank fails to write its part, another may still be writing; here all have ended.
            drop_unfinished(cell.run.folder / "checkpoints")
        outcome = pickle.loads((folder / OUTCOME).read_bytes())
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _run_ranks(folder: Path, *, processes: int, threads: int) -> None:
    """Run the worker module on a folder in several ranks on this machine with accelerate's launcher, and wait.

    Ctrl-C, SIGTERM, and the death of one rank or of this process end every rank.

    Raises:
        RanksFailed: a rank failed; it has printed why, unless a signal killed it.
        KeyboardInterrupt: this process was interrupted, and so were the ranks.
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
    levels = _quiet_launcher()
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
        for logger, level in levels.items():
            logger.setLevel(level)


def _quiet_launcher() -> dict[logging.Logger, int]:
    """Silence torchrun's tables about a failed rank, which itself prints why; return its loggers' levels till now."""
    import torch.distributed.run  # noqa: F401, creates its loggers, each with its own level

    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.")]
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    return levels


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
