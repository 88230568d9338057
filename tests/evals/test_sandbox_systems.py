"""The sandbox where the system is not so kind: no privileges, no namespaces, a kill in the middle."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
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


def test_an_unprivileged_user_gets_the_same_sandbox_or_a_refusal():
    python = python_for_everyone()
    if python is None:
        pytest.skip("no interpreter that another user may run (where we are no root, the whole file is this test)")
    printed = elsewhere(PROGRAMS, python=python, user=65534, group=65534, extra_groups=[])
    assert printed == "['passed', 'failed', 'passed', 'timeout'] full\n" or "allow_network_unconfined=true" in printed


ZYGOTE = f"""
import os, sys, time
sys.path.insert(0, {str(PACKAGE)!r})
import isolation
unconfined = isolation.Unconfined()
unconfined.enter(os.getppid())
"""
DEEP = """
ready, tell = os.pipe()
pid = unconfined.fork()
if pid == 0:
    os.chdir(unconfined.scratch)
    open("file", "w").close()
    for _ in range(1100):  # more than Python recurses or may have open
        os.mkdir("folder")
        os.chdir("folder")
    if os.fork() == 0:
        os.setsid()
        os.write(tell, b"%d" % os.fork())
    time.sleep(600)
os.read(ready, 9)
children = lambda: len(isolation.children(unconfined.proc, "self"))
print(children(), sorted(os.listdir(unconfined.scratch)), end=" ")
unconfined.end(pid)
print(children(), os.path.exists(unconfined.scratch))
"""
HOLDS = """
unconfined.fork() or os._exit(0)
print(unconfined.scratch, flush=True)
input()
"""
IS_KILLED = """
if unconfined.fork() == 0:
    os.makedirs(unconfined.scratch + "/folder/inner")
    for folder in ("/folder/inner", "/folder", ""):
        os.chmod(unconfined.scratch + folder, 0)
    os._exit(0)
os.wait()
print(unconfined.scratch, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_an_unconfined_candidate_starts_dies_with_it_and_its_scratch_goes():
    options = {"env": os.environ | {"TMPDIR": "/dev/shm"}}  # some disks are slow to remove a folder
    done = subprocess.run(
        [sys.executable, "-c", ZYGOTE + DEEP], stdout=subprocess.PIPE, text=True, timeout=20, **options
    )
    assert done.stdout == "1 ['file', 'folder'] 0 False\n"


@pytest.mark.parametrize("user", [None, 65534], ids=["ourselves", "another user"])
def test_the_scratch_folder_of_a_zygote_that_was_killed_goes_at_the_next_start_and_no_other_does(user):
    python = python_for_everyone() if user else sys.executable
    if python is None:
        pytest.skip("another user takes root, and an interpreter that everyone may run")
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o777)
        target, pipe, link = (Path(top, name) for name in ("target", "idlora-sandbox-pipe", "idlora-sandbox-link"))
        (target / "inner").mkdir(parents=True)
        os.mkfifo(pipe)
        link.symlink_to(target)

        def zygote(then: str) -> subprocess.Popen:
            options = {"user": user, "group": user, "extra_groups": []} if user else {}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            return subprocess.Popen([python, "-Bc", ZYGOTE + then], env={"TMPDIR": top}, cwd="/", **pipes, **options)

        with zygote(HOLDS) as holds:
            used = Path(holds.stdout.readline().strip())
            with zygote(IS_KILLED) as killed:  # after the other's start, which would sweep what this one leaves
                left = Path(killed.communicate(timeout=20)[0].strip())
            assert {*Path(top).iterdir()} == {target, pipe, link, used, left}
            with zygote("") as next_one:
                next_one.communicate(timeout=20)
            assert {*Path(top).iterdir()} == {target, pipe, link, used}
            assert (target / "inner").exists()
            holds.communicate("\n")


EVERYTHING_ALLOWED = Permissions(allow_code_execution=True, allow_network_unconfined=True)


@pytest.fixture
def started(monkeypatch):
    """The processes that the pool starts from now on; the first `lost` of them are killed at once."""
    found, popen = [], subprocess.Popen

    def start(*arguments, **options):
        found.append(popen(*arguments, **options))
        if len(found) <= start.lost:
            found[-1].kill()
            found[-1].wait()
        return found[-1]

    start.lost = 0
    monkeypatch.setattr(subprocess, "Popen", start)
    return start, found


def test_a_sandbox_that_is_lost_at_the_start_is_started_once_more_and_never_less_confined(started):
    start, found = started
    start.lost = 1
    (outcome,) = run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED)
    assert (outcome.passed, outcome.confinement, len(found)) == (True, "full", 2)
    found.clear()
    start.lost = 2
    with pytest.raises(ExecutionRefused, match="twice"):
        run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED)
    assert len(found) == 2


def test_a_sandbox_that_is_slow_or_cannot_start_or_run_anything_is_refused_with_the_reason(monkeypatch):
    with pytest.raises(ExecutionRefused, match="a program that only returns 1 came to 'timeout'"):
        run_jobs([job("def f(): return 42")], permissions=ALLOWED, limits=Limits(seconds=1e-6))
    monkeypatch.setattr(pool, "_PATIENCE", -1.0)
    with pytest.raises(ExecutionRefused, match="no answer within 0 seconds"):
        run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED, limits=Limits(seconds=1.0))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ExecutionRefused, match="/nowhere/python"):
        run_jobs([job("def f(): return 42")], permissions=EVERYTHING_ALLOWED)


def test_as_many_programs_run_at_once_as_there_are_cpus_that_we_may_use(started, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 7})
    found = run_jobs([job(f"def f(): return 42 + {n}") for n in range(4)], permissions=ALLOWED)
    assert [o.passed for o in found] == [True, False, False, False]
    assert len(started[1]) == 2


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
    """Return a process's working folder; a zombie has none."""
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(f"/proc/{pid}/cwd")
    return ""


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
        zygote = min(pid for pid in family if "zygote.py" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(process.pid if victim == "the evaluation" else zygote, signal.SIGKILL)
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
