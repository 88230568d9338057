"""What a candidate asks of the kernel and does not get, and what its processes may hold together, however confined."""

import errno
import os
import re
import socket
import subprocess
import sys
import textwrap

import pytest
from sandbox_jobs import ALLOWED, PACKAGE, elsewhere, job, python_for_everyone, returned

from reproduction.evals.sandbox import ExecutionRefused, pool, run_jobs

sys.path.insert(0, str(PACKAGE))
import isolation
import kernel

del sys.path[0]

WITHOUT_NAMESPACES = "sandbox.pool.CONFINEMENTS = ('unconfined',)\n"
# Unconfined and not root, a candidate shares the limit with all of the user's processes.
MANY_PROCESSES = "sandbox.run_jobs.__kwdefaults__['limits'] = sandbox.Limits(processes=10_000)\n"
WAYS = {
    "full": {},
    "full, of another user": {"user": 65534, "group": 65534, "extra_groups": []},
    "unconfined": {"before": WITHOUT_NAMESPACES + MANY_PROCESSES, "unconfined": True},
    "unconfined, of another user": {
        **{"user": 65534, "group": 65534, "extra_groups": []},
        **{"before": WITHOUT_NAMESPACES + MANY_PROCESSES, "unconfined": True},
    },
}
HONEST = """
    import array, asyncio, calendar, concurrent.futures, csv, ctypes, dataclasses, decimal, difflib, email, enum
    import fractions, glob, html, io, locale, logging, multiprocessing, numbers, os, pathlib, pickle, pprint, queue
    import secrets, shutil, signal, socket, subprocess, tempfile, threading, time, unittest, urllib.parse, uuid, zlib

    async def half(x):
        await asyncio.sleep(0)
        return x // 2

    def f():
        with tempfile.TemporaryDirectory(dir=".") as folder:
            path = pathlib.Path(folder, "file")
            path.write_text(str(calendar.monthrange(2024, 2)[1]))
            days = int(path.read_text())
        ours, theirs = socket.socketpair()
        ours.send(b"x")
        waiting = queue.Queue()
        waiting.put(asyncio.run(half(2)))
        assert theirs.recv(1) == b"x" and os.cpu_count() >= 1
        return days + waiting.get() + int(decimal.Decimal("12"))
"""
CONCURRENT = """
    import concurrent.futures, multiprocessing, os, threading

    def child(connection):
        connection.send(threading.active_count())

    def f():
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            total = sum(threads.map(abs, [-20, -20]))
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
        process.start()
        total += ours.recv()
        process.join()
        if os.fork() == 0: os._exit(1)
        return total + os.waitstatus_to_exitcode(os.wait()[1])
"""
FAMILY = """
    import os, time

    def f():
        for _ in range({children}):
            if os.fork() == 0:
                {shared}
                time.sleep({seconds})
                os._exit(0)
        time.sleep({seconds})
        return 42
"""
HOARDERS = FAMILY.format(children=4, shared='x = b"x" * (180 << 20)', seconds=2)
SHARERS = 'x = b"x" * (200 << 20)\n' + textwrap.dedent(FAMILY).format(children=3, shared="", seconds=0.3)
CALLS = """
    import ctypes, errno, mmap, os, socket
    libc = ctypes.CDLL(None, use_errno=True)

    def given():
        for name, number in NUMBERS.items():
            if (libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()) != (-1, errno.EPERM):
                yield name
        for name, number in (("clone3", 435), ("one that is not known yet", 470)):
            if (libc.syscall(number, 0, 0), ctypes.get_errno()) != (-1, errno.ENOSYS):
                yield name
        for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
            if (libc.syscall(CLONE, flag, 0, 0, 0, 0), ctypes.get_errno()) != (-1, errno.EPERM):
                yield f"clone with flag {flag:x}"
        if libc.prctl(1, 0, 0, 0, 0) != -1:
            yield "to outlive the parent"
        if libc.prctl(41, 0, 0, 0, 0) != -1 or libc.prctl(42, 0, 0, 0, 0) != 1:
            yield "huge pages"
        for make in (
            lambda: mmap.mmap(-1, 4096),
            lambda: os.memfd_create("x"),
            *((lambda: open("/dev/shm/idlora-test", "w"),) if FILES else ()),
            lambda: socket.socketpair(type=socket.SOCK_DGRAM),
            lambda: socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 26),
            *(lambda family=family: socket.socket(family) for family in FAMILIES),
        ):
            try: yield repr(make())
            except OSError: pass

    def f():
        found = list(given())
        assert not found, found
        return 42
"""
X32 = "import ctypes\ndef f():\n    ctypes.CDLL(None).syscall(0x40000000 + 39)\n    return 42"
FAMILIES = ["UNIX", "INET", "INET6", "NETLINK", "PACKET", "ALG", "VSOCK"]
OUTSIDE = """
    import os

    def f():
        found = []
        for attempt in (
            lambda: os.listdir("/"),
            lambda: open("/etc/passwd"),
            lambda: open("/proc/self/environ"),
            lambda: open("/tmp/idlora-test", "w"),
            lambda: os.kill(os.getppid(), 0) if SIGNALS else open("/nowhere"),
        ):
            try: found.append(repr(attempt()))
            except OSError: pass
        assert not found, found
        return 42
"""
SECRET = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(KEYCTL, 1, None)
    assert libc.syscall(ADD_KEY, b"user", b"idlora-secret", b"hunter2", 7, -3) > 0
"""
FIND = 'libc.syscall(KEYCTL, 10, RING, b"user", b"idlora-secret", 0) > 0'


@pytest.mark.parametrize("way", WAYS)
def test_honest_programs_run_and_what_no_solution_needs_of_the_kernel_is_refused(way):
    options = dict(WAYS[way])
    python = sys.executable if way == "full" or os.geteuid() != 0 else python_for_everyone()
    if python is None or ("user" in options and os.geteuid() != 0):
        pytest.skip("another user takes root, and an interpreter that everyone may run")
    numbers = {name: kernel.number_here(each) for name, each in kernel.NUMBERS.items()}
    numbers = {name: number for name, number in numbers.items() if number is not None}
    confined, landlock = way.startswith("full"), kernel.landlock_version()
    names = f"""
        NUMBERS, CLONE, FILES = {numbers}, {kernel.number_here(kernel.CLONE)}, {confined or landlock > 0}
        FAMILIES, SIGNALS = {[int(getattr(socket, f"AF_{name}")) for name in FAMILIES]}, {landlock >= 6}
        KEYCTL, ADD_KEY = {numbers["keyctl"]}, {numbers["add_key"]}
    """
    names = textwrap.dedent(names)
    secret = names + textwrap.dedent(SECRET)
    if subprocess.run([sys.executable, "-c", secret], check=False, stderr=subprocess.DEVNULL).returncode == 0:
        options["before"] = options.get("before", "") + secret + f"assert {FIND.replace('RING', '-3')}\n"
    look = "import ctypes\nlibc = ctypes.CDLL(None)\ndef f(): return 42 + any(" + FIND + " for RING in (-3, -4))"
    expected = {
        HONEST: "passed", CONCURRENT: "passed", HOARDERS: "memory", SHARERS: "passed", CALLS: "passed", look: "passed",
        X32: "exited" if os.uname().machine == "x86_64" else "passed",  # killed, or there is no such architecture
        **({OUTSIDE: "passed"} if landlock and not confined else {}),
    }  # fmt: skip
    programs = [names + textwrap.dedent(program) for program in expected]
    assert elsewhere(programs, python=python, **options) == f"{[*expected.values()]} {way.split(',')[0]}\n"


def test_keys_are_left_without_a_filter_too():
    names = f"KEYCTL, ADD_KEY = {[kernel.number_here(kernel.NUMBERS[name]) for name in ('keyctl', 'add_key')]}\n"
    secret, found = names + textwrap.dedent(SECRET), f"assert {FIND.replace('RING', '-3')}\n"
    if subprocess.run([sys.executable, "-c", secret], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("a system without keys")
    leave = f"import sys\nsys.path.insert(0, {str(PACKAGE)!r})\nimport isolation\nisolation.leave_keys()\n"
    done = subprocess.run([sys.executable, "-c", secret + found + leave + found], capture_output=True, check=False)
    assert b"AssertionError" in done.stderr


def test_children_are_found_without_the_kernels_lists_of_them_too():
    with subprocess.Popen(["sleep", "60"]) as child:
        proc = isolation.open_proc()
        try:
            for found in (isolation.children(proc, "self"), isolation._children_by_search(proc, str(os.getpid()))):
                assert str(child.pid) in found  # beside what earlier tests of this process have left running
                assert str(os.getpid()) not in found
        finally:
            os.close(proc)
            child.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="whose a file is can be told where candidates have a uid of their own")
def test_without_namespaces_and_landlock_no_shared_memory_stays_behind():
    script = """
        import isolation, os, time
        isolation.kernel.landlock_version = lambda: 0
        unconfined = isolation.Unconfined()
        unconfined.enter(os.getppid())
        ready, tell = os.pipe()
        pid = unconfined.fork()
        if pid == 0:
            unconfined.settle(dict(memory_mb=512, file_mb=16, processes=8, seconds=1))
            open("/dev/shm/idlora-test-left", "w").close()
            os.write(tell, b"x")
            time.sleep(60)
        os.read(ready, 1)
        print(os.path.exists("/dev/shm/idlora-test-left"), end=" ")
        unconfined.end(pid)
        print(os.path.exists("/dev/shm/idlora-test-left"))
    """
    script = f"import sys\nsys.path.insert(0, {str(PACKAGE)!r})\n{textwrap.dedent(script)}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == "True False\n"


def action(machine: str, number: int, *arguments: int) -> int:
    """Interpret the filter's instructions for a machine and return its action."""
    words = {0: number, 4: kernel.ARCHITECTURES[machine], **{16 + 8 * n: x for n, x in enumerate(arguments)}}
    steps, at, held = kernel.filter_program(machine), 0, 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        if code == kernel.RETURN:
            return constant
        if code == kernel.LOAD:
            held = words.get(constant, 0)
        elif code == kernel.AND:
            held &= constant
        else:
            holds = {kernel.EQUAL: held == constant, kernel.AT_LEAST: held >= constant}
            at += if_true if holds.get(code, bool(held & constant)) else if_false


def test_the_filter_of_the_other_machine_refuses_by_its_own_numbers():
    refused = 0x50000 + errno.EPERM
    for machine, keyctl, read, mmap in (("x86_64", 250, 0, 9), ("aarch64", 219, 63, 222)):
        assert action(machine, keyctl) == refused
        assert action(machine, read) == kernel.ALLOW
        assert action(machine, mmap, 0, 0, 0, 0x22) == kernel.ALLOW  # private, of no file
        assert action(machine, mmap, 0, 0, 0, 0x01) == kernel.ALLOW  # shared, of a file
        assert action(machine, mmap, 0, 0, 0, 0x21) == refused  # shared, of no file
    assert action("aarch64", 250) == kernel.ALLOW
    with pytest.raises(kernel.Unsupported, match="on riscv64"):
        kernel.filter_program("riscv64")


def test_the_start_up_check_imports_what_was_not_loaded_before_and_a_failure_is_told_with_the_way_out(monkeypatch):
    names = [name for line in pool._START_UP_CHECK.program.splitlines() for name in re.findall(r"^import (.*)", line)]
    names = names[0].split(", ")
    assert returned(f"import sys\ndef f(): return [name for name in {names} if name in sys.modules]") == "[]"
    monkeypatch.setattr(pool, "_START_UP_CHECK", job("import no_such_module\ndef f(): return 42"))
    with pytest.raises(ExecutionRefused, match=r"No module named 'no_such_module'.* use a Python that every user can"):
        run_jobs([job("def f(): return 42")], permissions=ALLOWED)


def test_a_start_up_check_without_a_verdict_is_tried_again_and_blames_no_folder(monkeypatch):
    monkeypatch.setattr(pool, "_START_UP_CHECK", job("def f(): return 42", "import os\nos._exit(1)"))
    with pytest.raises(ExecutionRefused, match=r"failed to start twice .*ended without a verdict"):
        run_jobs([job("def f(): return 42")], permissions=ALLOWED)


@pytest.mark.parametrize("unconfined", [False, True])
def test_on_an_architecture_that_no_filter_is_for_nothing_is_suggested_that_would_not_help(unconfined):
    in_32_bits = "import ctypes\nctypes.CDLL(None).personality(8)\n"  # what uname says is then another machine
    printed = elsewhere([HONEST], before=in_32_bits, unconfined=unconfined)
    assert "no list of system calls to refuse on" in printed
    assert printed.endswith("run it elsewhere\n")
    assert "allow_network_unconfined" not in printed


def test_a_helper_whose_parent_has_ended_ends_too():
    script = f"import os, sys\nsys.path.insert(0, {str(PACKAGE)!r})\nimport isolation\n"
    for parent, code in (("os.getppid()", 0), ("os.getppid() + 1", 1)):
        done = subprocess.run([sys.executable, "-c", f"{script}isolation.die_with_parent({parent})"], check=False)
        assert done.returncode == code
