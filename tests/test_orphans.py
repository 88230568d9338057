"""Nothing outlives the command that started it, and what a killed writer leaves behind is gone after the next one."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forks import all_ended, at_work_in

from reproduction.system import atomic, orphans
from reproduction.system.atomic import ENDING, HOST, NotWritten, scratch_folder, sweep, written_whole

MODULES = str(Path(orphans.__file__).parent)  # imported from there, they cost no second: the package imports torch

PARENT = """
import subprocess, sys, time
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
ctypes.PyDLL(None).sleep(60)   # holds the interpreter, so that no thread of Python's can watch anything
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a process with its parent on Linux alone")
@pytest.mark.parametrize("moment", [0.0, 0.03, None], ids=lambda each: f"after {each} s")
def test_what_a_process_started_is_killed_with_it_at_any_moment(tmp_path, moment):
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


@pytest.mark.parametrize("flags", [[], ["-P"]], ids=["with its folder on the path", "without"])
def test_what_is_started_finds_its_own_copy_of_the_package_and_the_standard_library(tmp_path, flags):
    mine, others = tmp_path / "site", tmp_path / "others"
    for root in (mine, others):
        (root / "idlora").mkdir(parents=True)
        (root / "idlora" / "said.py").write_text("import json; print(__file__, json.__file__)")
    for odd in (mine / "json.py", mine / "idlora" / "json.py"):
        odd.touch()
    script = str(shutil.copy(orphans.__file__, mine / "idlora"))
    late = f"import runpy, sys; sys.path.append({str(others)!r}); del sys.argv[0]; "
    late += f"runpy.run_path({script!r}, run_name='__main__')"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in ([script], ["-c", late, script]):
        arguments = [sys.executable, *flags, *command, str(os.getpid()), "idlora.said"]
        done = subprocess.run(arguments, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(mine / "idlora" / "said.py"), json.__file__]


WATCHING = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import orphans
if len(sys.argv) == 2:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:], str(os.getpid())])
else:
    orphans._bound_by_kernel = lambda: False
    orphans.end_with(int(sys.argv[2]))
    print("watching", flush=True)
time.sleep(60)
"""


def test_where_the_kernel_cannot_be_asked_a_thread_ends_the_process(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WATCHING, MODULES], cwd=tmp_path, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"watching\n"
        parent.kill()
        all_ended(tmp_path, within=2)


def test_the_torture_says_where_it_cannot_run(tmp_path, repository):
    command = [sys.executable, str(repository / "tests" / "torture"), "disks"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "unshare" in done.stderr


KILLED = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[1])
from atomic import scratch_folder, written_whole
here = pathlib.Path(sys.argv[2])
with scratch_folder(here, ".scratch-") as folder, written_whole(here / "file") as file:
    (folder / "large").touch()
    file.write(b"half a fi")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_others_are_at_is_not(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("before")
    (tmp_path / ".other.tmp").touch()
    (tmp_path / ".scratch-my-own-folder").mkdir()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, MODULES, str(tmp_path)], check=False)
    assert (tmp_path / "file").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 6, "the second removed what the first left, and left the same"
    monkeypatch.setattr(atomic.fcntl, "flock", as_nfs_locks)
    with scratch_folder(tmp_path, ".scratch-") as mine, written_whole(tmp_path / "one") as one:
        with scratch_folder(tmp_path, ".scratch-") as other, written_whole(tmp_path / "file") as file:
            assert mine.is_dir()
            assert other.is_dir()
            file.write(b"after")
        one.write(b"written")
    assert (tmp_path / "one").read_text() == "written"
    assert (tmp_path / "file").read_text() == "after"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "one", ".other.tmp", ".scratch-my-own-folder"}


def as_nfs_locks(file, how, lock=fcntl.flock):
    """Files that are open for writing, alone."""
    if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    lock(file, how)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, monkeypatch, failing):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("before")
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(NotWritten, match=r"cannot write \S*/file: No space left on device") as told:
        with_text(tmp_path / "file", "after")
    assert told.value.errno == 28
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_a_write_does_not_answer_for_what_else_its_block_does(tmp_path):
    with pytest.raises(FileNotFoundError) as told, written_whole(tmp_path / "file"):
        (tmp_path / "other").read_text()
    assert (told.type, told.value.filename) == (FileNotFoundError, str(tmp_path / "other"))
    with pytest.raises(NotWritten, match=r"write .*/file: No space"), written_whole(tmp_path / "file") as file:
        on_a_full_disk(file)
    assert list(tmp_path.iterdir()) == []


def on_a_full_disk(file):
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), file.fileno())
    file.write(bytes(2**20))  # more than a buffer holds: it fails here, and not at the end


def test_writers_of_one_file_do_not_meet_where_nothing_can_be_locked_either(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    path, texts, read = tmp_path / "file", [each * 2**16 for each in "abc"], set()
    with_text(path, texts[0])
    for locks in (atomic.fcntl.flock, no_locks):
        monkeypatch.setattr(atomic.fcntl, "flock", locks)
        with ThreadPoolExecutor(3) as threads:
            written = [threads.submit(with_text, path, text) for text in texts * 10]
            while not all(each.done() for each in written):
                read.add(path.read_text())
        assert [each.exception() for each in written] == [None] * 30
        assert read <= set(texts)
        assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_sweep_removes_what_this_host_left_alone_and_waits_for_nothing(tmp_path):
    deep = tmp_path / "deep"
    deep.mkdir()
    left, other = f"{HOST}-01234567{ENDING}", f"{int(HOST, 16) ^ 1:08x}-01234567{ENDING}"
    for name in (left, f".file.{left}", other, f"deep/.file.{left}"):
        (tmp_path / name).touch()
    (tmp_path / left).with_suffix("").mkdir()
    (tmp_path / left).with_suffix("").joinpath("file").touch()
    os.mkfifo(tmp_path / f"fifo-{left}")
    (tmp_path / f"link-{left}").symlink_to(other)
    (tmp_path / f"folder-{left}").mkdir()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        other, f"fifo-{left}", f"link-{left}", f"folder-{left}", "deep",
    }  # fmt: skip
    assert len(list(deep.iterdir())) == 1
    sweep(tmp_path, below=True)
    assert list(deep.iterdir()) == []


def with_text(path: Path, text: str) -> None:
    with written_whole(path) as file:
        file.write(text.encode())
