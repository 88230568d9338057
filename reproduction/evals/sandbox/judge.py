"""The trusted side: runs a benchmark's test against a candidate that lives in another process.

Started by the pool as a script in a fresh interpreter. Frames on standard input are jobs, frames on standard output
their outcomes. Each test runs in a child of its own, in the namespace of the problem's prompt (its helpers, its
stub), where the entry point is a proxy: a call goes to the candidate as plain values and what comes back is a plain
value or an exception. The verdict is made here and travels on a pipe that the candidate does not have.

Arguments go by value: a candidate that changes them in place changes its own copies. Exceptions come back as the
builtin Exception of that name, else as CandidateError. A test cannot swallow the end of a candidate: timeout, exit
and values that do not cross decide the outcome whatever the test does with them.
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

GRACE = 1.0  # seconds beyond the limit after which a test that is itself stuck is ended


class CandidateError(Exception):
    """The candidate raised something that is not a builtin Exception (SystemExit among others)."""


class Ended(BaseException):
    """The candidate cannot answer any more; `Candidate.ended` holds the outcome."""


class Candidate:
    """The other end: `start` runs the program, `call` its entry point. All of it within `seconds`."""

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
    # A StopIteration would end a map of the test's early, as if all were well.
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (StopIteration, StopAsyncIteration):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and its like take more than a text
            pass
    return CandidateError(f"{name}: {text}")


def verdict(job, candidate):
    """(outcome, detail) of one job."""
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
    """Runs one test in a child and waits for its verdict, no longer than the limit and a grace.

    `control` can be read when the zygote is gone: what the candidate started may hold `connection` open then.
    """
    receive, send = os.pipe()
    ourselves, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            isolation.die_with_parent(ourselves)
            memory = 2 * limits["memory_mb"] << 20  # what a candidate returns must not exhaust us
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
    for standard in (0, 1, 2):  # tests print, and their prints are no outcomes
        os.dup2(null, standard)
    setting = wire.unpack(jobs.read)
    isolation.die_with_parent(setting["parent"])  # and the zygote, and what it runs, with us
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
            below.wait()  # not to leave it to whoever takes orphans
            os._exit(0)  # there is nothing to tidy, and the pool waits
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(control, [b"+"], [theirs.fileno()])
            theirs.close()
            outcome = judge(job, ours, control=control, limits=setting["limits"])
            control.sendall(wire.OK)
            if not (answer := control.recv(1)):
                raise EOFError
        except (EOFError, OSError):  # the zygote was killed: what it ran is ours, and the pool starts another pair
            isolation.end_children(proc)
            os._exit(1)
        if answer == wire.TOO_MUCH_MEMORY:
            outcome = ["memory", "its processes held more than the limit together"]
        outcomes.write(wire.pack(outcome))


if __name__ == "__main__":
    main()
