"""A thousand candidates of many kinds through the sandbox at once: all graded as they should be, nothing is left."""

import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from reproduction.evals.sandbox import Job, Limits, Permissions, run_jobs

WORKERS = 8
LIMITS = Limits(seconds=2.0)
TEST = "def check(candidate):\n    assert candidate() == 42"

# Kind → possible outcomes and program; several outcomes if the kernel decides which limit is hit first.
KINDS: dict[str, tuple[set[str], str]] = {
    "honest": ({"passed"}, "def f(): return sum(range(9)) + 6"),
    "honest with imports": ({"passed"}, "import calendar, queue\ndef f(): return 42"),
    "honest with threads": (
        {"passed"},
        """
        from concurrent.futures import ThreadPoolExecutor
        def f():
            with ThreadPoolExecutor(3) as threads: return sum(threads.map(abs, [-40, -1, -1]))
        """,
    ),
    "wrong": ({"failed"}, "def f(): return 41"),
    "not Python": ({"error"}, "def f(: return 42"),
    "an object equal to all": (
        {"not_plain"},
        "class Yes:\n    def __eq__(self, other): return True\ndef f(): return Yes()",
    ),
    "answers on every descriptor": (
        {"failed", "exited", "not_plain"},
        r"""
        import os
        for fd in range(64):
            for text in (b'["passed", ""]', b'["return", ["int", "29"]]'):
                try: os.write(fd, len(text).to_bytes(4, "big") + text)
                except OSError: pass
        def f(): return 41
        """,
    ),
    "an early exit": ({"exited"}, "import os\ndef f(): os._exit(0)"),
    "a polite exit": ({"error"}, "def f(): raise SystemExit(0)"),
    "a fork bomb": (
        {"error", "exited", "memory", "not_plain", "timeout"},
        "import os\ndef f():\n    while True: os.fork()",
    ),
    "a hoard": ({"memory", "timeout"}, "def f():\n    x = []\n    while True: x.append(b'x' * 10**7)"),
    "a family's hoard": (
        {"memory"},
        """
        import os, time
        def f():
            for _ in range(4):
                if os.fork() == 0:
                    x = b"x" * (240 << 20)
                    time.sleep(60)
            time.sleep(60)
        """,
    ),
    "shared memory": (
        {"passed"},
        """
        import ctypes, mmap, os
        libc = ctypes.CDLL(None)
        SHMGET = {"x86_64": 29, "aarch64": 194}[os.uname().machine]
        def f():
            for make in (
                lambda: mmap.mmap(-1, 256 << 20),
                lambda: os.ftruncate(os.memfd_create("idlora-torture"), 256 << 20),
                lambda: open("/dev/shm/idlora-torture", "w"),
            ):
                try: make()
                except OSError: continue
                return 41
            return 42 if libc.syscall(SHMGET, 0, 256 << 20, 0o1600) == -1 else 41
        """,
    ),
    "an endless loop": ({"timeout"}, "def f():\n    while True: pass"),
    "a sleep that ignores signals": (
        {"timeout"},
        """
        import signal, time
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def f():
            while True: time.sleep(60)
        """,
    ),
    "a flood of output": ({"passed"}, "import os\ndef f():\n    print('y' * 10**7)\n    return 42"),
    "a huge answer": ({"not_plain"}, "def f(): return 'x' * 2**22"),
    "a daemon": (
        {"passed"},
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: time.sleep(600)
            os._exit(0)
        def f(): return 42
        """,
    ),
    "signals for everybody": (
        {"passed"},
        """
        import os
        def f():
            for pid in (os.getppid(), -1, *range(2, 4000)):
                try: os.kill(pid, 9)
                except OSError: pass
            return 42
        """,
    ),
    "a full disk": (
        {"passed"},
        """
        def f():
            try:
                for number in range(40):
                    with open(str(number), "wb") as file: file.write(b"x" * (1 << 20))
            except OSError: return 42
        """,
    ),
    "sockets": (
        {"passed"},
        """
        import socket
        def f():
            for family in (2, 10, 16, 17, 38, 40):
                try: socket.socket(family)
                except OSError: continue
                return 41
            return 42
        """,
    ),
    "keys": (
        {"passed"},
        """
        import ctypes, os
        KEYCTL = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
        def f(): return 41 - ctypes.CDLL(None).syscall(KEYCTL, 0, -3, 0)
        """,
    ),
    "threads without end": (
        {"error"},
        """
        import threading, time
        def f():
            while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
    ),
    "recursion": ({"error"}, "def f(): return f()"),
}


class Watch(threading.Thread):
    """Record the descendants of this process and their peak total memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before, self.seen = set(_family()), set()
        self.peak_bytes = self.most_processes = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            family = set(_family()) - self.before
            self.seen |= family
            self.most_processes = max(self.most_processes, len(family))
            self.peak_bytes = max(self.peak_bytes, sum(map(_held, family)))


def _family() -> list[psutil.Process]:
    """Return the descendants of this process, which compare equal by pid and start time."""
    return psutil.Process().children(recursive=True)


def _held(process: psutil.Process) -> int:
    """Return the memory of a process in bytes; shared pages count proportionally."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def _places() -> set[str]:
    """Return possible leftovers: segments, queues, semaphores, files in memory, mounts, scratch folders."""
    tables = [Path(f"/proc/sysvipc/{kind}") for kind in ("shm", "msg", "sem")] + [Path("/proc/self/mounts")]
    lines = [f"{table}: {' '.join(line.split()[:2])}" for table in tables for line in table.read_text().splitlines()]
    return {
        *lines,
        *map(str, Path("/dev/shm").glob("idlora-torture*")),
        *map(str, Path("/tmp").glob("*idlora-sandbox-*")),
    }


def candidates(count: int = 1000) -> dict[str, str]:
    """Run `count` programs of all kinds in parallel and return the figures. Raises AssertionError on failure."""
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(count)]
    jobs = [
        Job(prompt="", test=TEST, entry_point="f", program=f"{textwrap.dedent(KINDS[kind][1])}\n# {number}\n")
        for number, kind in enumerate(kinds)
    ]
    places, watch, start = _places(), Watch(), time.monotonic()
    watch.start()
    outcomes = run_jobs(jobs, permissions=Permissions(True), limits=LIMITS, workers=WORKERS)
    seconds = time.monotonic() - start
    watch.over.set()
    watch.join()
    wrong = [(kind, o) for kind, o in zip(kinds, outcomes, strict=True) if o.outcome not in KINDS[kind][0]]
    assert not wrong, f"{len(wrong)} of {count} candidates came to another outcome than they should, first {wrong[0]}"
    left = [process for process in watch.seen if process.is_running()]
    assert not left, f"{len(left)} processes of {len(watch.seen)} that were seen are left: {left[:5]}"
    assert _places() <= places, f"candidates left {sorted(_places() - places)[:5]}"
    counts = Counter(o.outcome for o in outcomes)
    return {
        "candidates": f"{count} of {len(set(kinds))} kinds, {WORKERS} at once",
        "all graded after": f"{seconds:.1f} s",
        "their peak memory": f"{watch.peak_bytes / 2**20:.0f} MiB",
        "their processes": f"{len(watch.seen)} seen, {watch.most_processes} at once",
        "their outcomes": ", ".join(f"{name} {counts[name]}" for name in sorted(counts)),
    }
