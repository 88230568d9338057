"""Processes on the CPU, forked from one that has imported everything: a rank starts in a tenth of a second, not seven.

`start` runs a script as a command of its own, and the ranks that it starts are forked from it in turn. What that leaves
out is how an interpreter starts: some tests start theirs by `sys.executable`. `together` runs a function of a test
module in two ranks.
"""

import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from reproduction.system import orphans

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "reproduction.running.ddp_worker", "reproduction.cells.from_config", "reproduction.training.trainer",
        "deepspeed", "accelerate.commands.launch", "torch.distributed.run", "transformers.models.llama.modeling_llama",
    ]
)  # fmt: skip

PRINTED = ("stdout", "stderr")


def no_compiler() -> bool:
    """Whether DeepSpeed cannot be tested between processes of a CPU: it finds no C++ compiler. Never so where CI is."""
    return shutil.which(os.environ.get("CXX", "c++")) is None and not os.environ.get("CI")


@dataclass(frozen=True)
class Started:
    """A script at work: its process, the leader of a session, and the files that it prints to."""

    process: multiprocessing.Process
    folder: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self, seconds: float = 120) -> subprocess.CompletedProcess:
        """Wait for its end; as `subprocess.run` gives it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"not ended after {seconds} s: {self._printed()}")
        return subprocess.CompletedProcess(self.process.name, self.process.exitcode, *self._printed())

    def _printed(self) -> tuple[str, str]:
        return tuple((self.folder / name).read_text() for name in PRINTED)


def start(script: Path, arguments: Sequence[str], *, folder: Path, fault: Callable[[], None] | None = None) -> Started:
    """`python script arguments`, in the folder; ``fault()`` is called first, and what it patches the ranks inherit."""
    _emptied(folder)
    process = _FORKS.Process(target=_run_script, args=([str(script), *arguments], folder, fault), name=script.name)
    _start(process)
    return Started(process, folder)


def at_work_in(folder: Path) -> list[int]:
    """The processes whose working folder it is: a command and its ranks."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink() == folder:
                found.append(int(path.parent.name))
        except OSError:
            continue  # gone since, or not ours to look at
    return found


def all_ended(folder: Path, *, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while left := at_work_in(folder):
        assert time.monotonic() < deadline, f"{left} outlived the command"
        time.sleep(0.05)


def together(function: Callable[..., None], *arguments: Any, folder: Path, processes: int = 2) -> tuple[str, str]:
    """Call ``function(*arguments)`` in every rank of a launch, and return what all of them printed."""
    _emptied(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(processes):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        environment = {name: str(value) for name, value in {**numbers, "MASTER_PORT": port}.items()}
        environment["MASTER_ADDR"] = "127.0.0.1"
        ranks.append(_FORKS.Process(target=_call, args=(function, arguments, environment, folder)))
        _start(ranks[-1])
    try:
        for rank in ranks:
            rank.join(600)  # DeepSpeed may have to be built first
    finally:
        for rank in ranks:
            rank.kill()
    printed = tuple((folder / name).read_text() for name in PRINTED)
    assert [rank.exitcode for rank in ranks] == [0] * processes, printed[1][-3000:]
    return printed


def _start(process: multiprocessing.Process) -> None:
    with mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES=""):  # a CUDA that has been looked at cannot be forked
        process.start()


def _call(function: Callable[..., None], arguments: Sequence[Any], environment: dict[str, str], folder: Path) -> None:
    _print_to(folder)
    os.environ.update(environment)
    function(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # not through the destructors of a process group that the other rank has left


def _run_script(command: list[str], folder: Path, fault: Callable[[], None] | None) -> None:
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    os.setsid()
    os.chdir(folder)
    _print_to(folder)
    if fault is not None:
        fault()
    subprocess_handler.Popen = _fork_rank
    _run(command)


def _fork_rank(*, args: Sequence[str], env: dict[str, str], start_new_session: bool, **_: Any) -> Any:
    """In place of `subprocess.Popen(args)` in torch's launcher: `python -u script …` or `python -u -m module …`."""
    command = list(args[2:])
    process = multiprocessing.get_context("fork").Process(target=_run_rank, args=(command, env, start_new_session))
    process.start()
    return process._popen  # which can be polled and waited for


def _run_rank(command: list[str], environment: dict[str, str], start_new_session: bool) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if start_new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    _run(command)


def _run(command: list[str]) -> None:
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.modules.pop(command[1], None)
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        if command[0] == orphans.__file__:  # the ranks' module is imported here already
            sys.modules.pop(command[2], None)
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")


def _emptied(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in PRINTED:
        (folder / name).write_text("")


def _print_to(folder: Path) -> None:
    for number, name in enumerate(PRINTED, start=1):
        file = os.open(folder / name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
