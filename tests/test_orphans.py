"""Nothing outlives the command that started it, and what a killed writer leaves behind is gone after the next one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import all_ended, at_work_in

from idlora import orphans
from idlora.leftovers import NotWritten, scratch_folder, written_whole

MODULES = str(Path(orphans.__file__).parent)  # imported from there, they cost no second: the package imports torch

PARENT = """
import pathlib, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import orphans
for number in range(3):
    subprocess.Popen([sys.executable, *orphans.command("stubborn", str(number))])
print("started", flush=True)
time.sleep(60)
"""

STUBBORN = """
import ctypes, pathlib, sys
pathlib.Path(sys.argv[1]).touch()
ctypes.PyDLL(None).sleep(60)   # holds the interpreter, so that no thread of Python's can look after anything
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a process with its parent on Linux alone")
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.02, 0.03, 0.05, None], ids=lambda each: f"after {each} s")
def test_what_a_process_started_is_killed_with_it_whatever_it_is_at(tmp_path, moment):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    command = [sys.executable, "-c", PARENT, MODULES]
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"started\n"
        if moment is None:  # all three are at work, and none of them to be reached
            deadline = time.monotonic() + 30
            while not all((tmp_path / str(number)).exists() for number in range(3)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert len(at_work_in(tmp_path)) == 4
        else:
            time.sleep(moment)
        parent.kill()
    all_ended(tmp_path, within=2)


def test_a_process_that_finds_its_parent_gone_ends_at_once():
    someone_else = "1"
    gone = subprocess.run([sys.executable, orphans.__file__, someone_else, "this"], check=False)
    assert gone.returncode == -signal.SIGKILL


WATCHING = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import orphans
if len(sys.argv) == 2:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:], str(os.getpid())])
else:
    orphans._asked_of_the_kernel = lambda: False
    orphans.end_with(int(sys.argv[2]))
    print("watching", flush=True)
time.sleep(60)
"""


def test_where_the_kernel_cannot_be_asked_a_thread_sees_to_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WATCHING, MODULES], cwd=tmp_path, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"watching\n"
        parent.kill()
        all_ended(tmp_path, within=2)


KILLED = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[1])
from leftovers import scratch_folder, written_whole
here = pathlib.Path(sys.argv[2])
with scratch_folder(here, ".scratch-") as folder, written_whole(here / "file") as file:
    (folder / "large").touch()
    file.write(b"half a fi")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_others_are_at_is_not(tmp_path):
    (tmp_path / "file").write_text("before")
    (tmp_path / ".other.tmp").touch()
    (tmp_path / ".scratch-my-own-folder").mkdir()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, MODULES, str(tmp_path)], check=False)
    assert (tmp_path / "file").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 5, "the second removed what the first left, and left the same"
    with scratch_folder(tmp_path, ".scratch-") as mine, written_whole(tmp_path / "one") as one:
        with scratch_folder(tmp_path, ".scratch-") as other, written_whole(tmp_path / "file") as file:
            assert mine.is_dir()
            assert other.is_dir()
            file.write(b"after")
        one.write(b"written")
    assert (tmp_path / "one").read_text() == "written"
    assert (tmp_path / "file").read_text() == "after"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "one", ".other.tmp", ".scratch-my-own-folder"}


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWritten, match=r"cannot write \S*/file: No space left on device; put that right") as told:
        with_text(tmp_path / "file", "after")
    assert told.value.errno == 28
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def with_text(path: Path, text: str) -> None:
    with written_whole(path) as file:
        file.write(text.encode())
