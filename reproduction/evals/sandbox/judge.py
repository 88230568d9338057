"""The trusted side: runs a benchmark's test against a candidate in another process.

The pool starts this script in a fresh interpreter. Frames on standard input are jobs, frames on standard output their
outcomes. Each test runs in its own child, in the namespace of the problem's prompt (helpers, stub), where the entry
point is a proxy: a call sends plain values to the candidate and returns a plain value or raises an exception. The
verdict is made here and sent through a pipe that the candidate does not have.

Arguments are passed by value: in-place changes affect only the candidate's copies. Exceptions are raised as the builtin
Exception of that name, else as CandidateError. A test cannot hide the end of a candidate: timeout, exit and rejected
values decide the outcome whatever the test does with them.
"""

import builtins
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import isolation
import wire

del sys.path[0]

GRACE = 1.0  # seconds beyond the limit after which a stuck test is killed


class CandidateError(Exception):
    """The candidate raised something other than a builtin Exception (such as SystemExit)."""


class Ended(BaseException):
    """The candidate has ended; `Candidate.ended` holds the outcome."""


class Candidate:
    """Proxy of the candidate: `start` runs the program, `call` its entry point, `seconds` limits their total time."""

    def __init__(self, connection, seconds):
        self._connection = connection
        self._deadline = time.monotonic() + seconds
        self.ended = None

    def start(self, program, entry_point):
        self._exchange([program, entry_point])

    def call(self, *arguments, **keywords):
        return self._exchange(wire.encode((arguments, keywords)))

    def _exchange(self, message):
        if self.ended is not None:
            raise Ended
        try:
            self._set_timeout()
            self._connection.sendall(wire.pack(message))
            kind, *rest = wire.unpack(self._read)
            if kind == "return":
                return wire.decode(*rest)
            if kind != "raise":
                raise wire.NotPlain(f"the candidate returned {rest[0]}")
            name, text = map(str, rest)
        except TimeoutError:
            self.ended = ("timeout", "no answer in time")
        except (EOFError, OSError):
            self.ended = ("exited", "the process ended before it answered")
        except (wire.NotPlain, ValueError, TypeError, IndexError, RecursionError) as error:
            self.ended = ("not_plain", str(error)[:200])
        else:
            raise _exception(name, text)
        raise Ended

    def _read(self, count):
        data = bytearray()
        while len(data) < count:
            self._set_timeout()
            part = self._connection.recv(count - len(data))
            if not part:
                break
            data += part
        return bytes(data)

    def _set_timeout(self):
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


def _exception(name, text):
    kind = getattr(builtins, name, None)
    # A StopIteration would silently end an iteration in the test.
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (StopIteration, StopAsyncIteration):
        try:
            return kind(text)
        except TypeError:  # such as UnicodeDecodeError, which takes more arguments
            pass
    return CandidateError(f"{name}: {text}")


def verdict(job, candidate):
    """Run one job's test; return (outcome, detail)."""
    outcome = ("passed", "")
    try:
        random.seed(0)  # some tests draw their inputs
        candidate.start(job["program"], job["entry_point"])
        namespace = {"__name__": "test"}
        exec(compile(job["prompt"], "<prompt>", "exec"), namespace)
        namespace[job["entry_point"]] = candidate.call
        exec(compile(job["test"], "<test>", "exec"), namespace)
        namespace["check"](candidate.call)
    except AssertionError as error:
        outcome = ("failed", str(error)[:200])
    except MemoryError:
        outcome = ("memory", "")
    except BaseException as error:
        outcome = ("error", f"{type(error).__name__}: {error}"[:200])
    return candidate.ended or outcome


def judge(job, connection, *, control, limits):
    """Run one test in a child and wait for its verdict, at most for the limit plus `GRACE`.

    `control` becomes readable when the zygote ends; the candidate's descendants may still hold `connection` open then.
    """
    receive, send = os.pipe()
    ourselves, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            isolation.die_with_parent(ourselves)
            memory = 2 * limits["memory_mb"] << 20  # a candidate's return value must not exhaust our memory
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            os.write(send, wire.pack(verdict(job, Candidate(connection, limits["seconds"]))))
        finally:
            os._exit(0)
    os.close(send)
    connection.close()
    with open(receive, "rb") as pipe:
        try:
            ready, _, _ = select.select([pipe, control], [], [], limits["seconds"] + GRACE)
            if pipe in ready:
                return wire.unpack(pipe.read)
            return ["exited", "the zygote ended"] if ready else ["timeout", "the test did not end in time"]
        except EOFError:
            return ["error", "the test's process ended without a verdict"]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def main():
    jobs, outcomes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", 0)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):  # tests print, and their output must not mix with outcomes
        os.dup2(null, standard)
    setting = wire.unpack(jobs.read)
    isolation.die_with_parent(setting["parent"])  # and the zygote with its processes dies with us
    proc = isolation.adopt_orphans()
    control, theirs = socket.socketpair()
    zygote = os.path.join(os.path.dirname(os.path.abspath(__file__)), "zygote.py")
    below = subprocess.Popen([sys.executable, *sys.orig_argv[1:-1], zygote], stdin=theirs)
    theirs.close()
    control.sendall(wire.pack(setting | {"parent": os.getpid()}))
    with control.makefile("rb") as hello:
        outcomes.write(wire.pack(wire.unpack(hello.read)))
    isolation.preload()
    while True:
        try:
            job = wire.unpack(jobs.read)
        except EOFError:
            control.close()
            below.wait()  # leave no orphan
            os._exit(0)  # nothing to clean up, and the pool waits
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(control, [b"+"], [theirs.fileno()])
            theirs.close()
            outcome = judge(job, ours, control=control, limits=setting["limits"])
            control.sendall(wire.OK)
            if not (answer := control.recv(1)):
                raise EOFError
        except (EOFError, OSError):  # the zygote was killed: its processes are now ours, and the pool starts a new pair
            isolation.end_children(proc)
            os._exit(1)
        if answer == wire.TOO_MUCH_MEMORY:
            outcome = ["memory", "its processes held more than the limit together"]
        outcomes.write(wire.pack(outcome))


if __name__ == "__main__":
    main()
