"""What a candidate asks of the kernel and does not get, and what its processes may hold together, however confined."""

import os
import sys
import textwrap

import pytest
from sandbox_jobs import ALLOWED, PACKAGE, QUICK, elsewhere, job, python_for_everyone, returned

from idlora.evals.sandbox import ExecutionRefused, Limits, Permissions, pool, run_jobs

sys.path.insert(0, str(PACKAGE))
import isolation
import seccomp

del sys.path[0]

WITHOUT_NAMESPACES = "sandbox.pool.CONFINEMENTS = ('unconfined',)\n"
WAYS = {
    "full": {},
    "full, of another user": {"user": 65534, "group": 65534, "extra_groups": []},
    "unconfined": {"before": WITHOUT_NAMESPACES, "unconfined": True},
    "unconfined, of another user": {
        **{"user": 65534, "group": 65534, "extra_groups": []},
        **{"before": WITHOUT_NAMESPACES, "unconfined": True},
    },
}


def in_way(way: str, *bodies: str, before: str = "") -> str:
    options = dict(WAYS[way])
    python = python_for_everyone()
    if way == "full" or os.geteuid() != 0:
        python = sys.executable
    if python is None or ("user" in options and os.geteuid() != 0):
        pytest.skip("another user takes root, and an interpreter that everyone may run")
    options["before"] = options.get("before", "") + textwrap.dedent(before)
    return elsewhere([textwrap.dedent(body) for body in bodies], python=python, **options)


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
HOARDERS = FAMILY.format(children=6, shared='x = bytearray(b"x" * (120 << 20))', seconds=2)
SHARERS = 'x = bytearray(b"x" * (300 << 20))\n' + textwrap.dedent(FAMILY).format(children=3, shared="", seconds=0.3)


@pytest.mark.parametrize("way", WAYS)
def test_honest_programs_run_and_a_family_that_holds_too_much_does_not(way):
    programs = [HONEST, CONCURRENT, HOARDERS, SHARERS]
    expected = ["passed", "passed", "memory", "passed"]
    if way == "unconfined, of another user":  # the limit of processes counts all that the user has, so no more start
        programs, expected = programs[:1], expected[:1]
    assert in_way(way, *programs) == f"{expected} {way.split(',')[0]}\n"


REFUSED_CALLS = f"""
    import ctypes, errno, mmap, os, socket
    libc = ctypes.CDLL(None, use_errno=True)

    def given():
        for name, number in {{(name, seccomp.number(name)) for name in seccomp.NUMBERS}}:
            if number is not None and (libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()) != (-1, errno.EPERM):
                yield name
        for name, number in (("clone3", 435), ("one that is not known yet", 470)):
            if (libc.syscall(number, 0, 0), ctypes.get_errno()) != (-1, errno.ENOSYS):
                yield name
        for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
            if (libc.syscall({seccomp.CLONE[0]}, flag, 0, 0, 0, 0), ctypes.get_errno()) != (-1, errno.EPERM):
                yield f"clone with flag {{flag:x}}"
        if libc.prctl(1, 0, 0, 0, 0) != -1:
            yield "to outlive the parent"
        for make in (
            lambda: mmap.mmap(-1, 4096),
            lambda: mmap.mmap(os.open("/dev/zero", os.O_RDWR), 4096),
            lambda: os.memfd_create("x"),
            lambda: socket.socketpair(type=socket.SOCK_DGRAM),
            *(lambda family=family: socket.socket(family) for family in (2, 10, 16, 17, 38, 40)),
        ):
            try: yield repr(make())
            except OSError: pass

    def f():
        found = list(given())
        assert not found, found
        return 42
"""
OTHER_ARCHITECTURE = """
    import ctypes, mmap

    def f():
        code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
        code.write(CODE)
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
        return 42
"""
BY_THE_32_BIT_TABLE = bytes.fromhex("53b814000000cd805bc3")  # getpid as on i386, by int 0x80


@pytest.mark.parametrize("way", WAYS)
def test_what_no_solution_needs_of_the_kernel_is_refused(way):
    calls = REFUSED_CALLS.replace("seccomp.", "").replace("{(name", "{(name")
    assert in_way(way, calls)
