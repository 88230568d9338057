"""The candidate's side: a warm process that forks one sandboxed child per program and never sees a test.

The judge starts this script in a fresh interpreter, with a Unix socket as standard input. The socket delivers the
settings (once), then one socket per program, through which the child receives the program and the calls to answer.
Another byte kills the child and its descendants, and is answered with OK or TOO_MUCH_MEMORY.
"""

import contextlib
import os
import random
import select
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import isolation
import kernel
import wire

del sys.path[0]

TICK = 0.01  # seconds between measurements of the memory of a candidate and its descendants


def serve(connection):
    """In the child: read and run the program, then answer calls of its entry point until the judge disconnects."""
    read = connection.makefile("rb").read

    def answer(action):
        try:
            value = action()
        except BaseException as error:  # also SystemExit: the judge decides
            frame = wire.pack(["raise", type(error).__name__, _text(error)])
        else:
            try:
                frame = wire.pack(["return", wire.encode(value)])
            except (wire.NotPlain, RecursionError) as error:
                frame = wire.pack(["not plain", str(error)])
        with contextlib.suppress(OSError):
            connection.sendall(frame)

    program, entry_point = wire.unpack(read)
    namespace = {"__name__": "candidate"}
    random.seed(0)
    answer(lambda: exec(compile(program, "<program>", "exec"), namespace))
    while True:
        arguments, keywords = wire.decode(wire.unpack(read))
        answer(lambda: namespace[entry_point](*arguments, **keywords))  # noqa: B023 (called at once)


def _text(error):
    try:
        return str(error)[:200]
    except BaseException:
        return ""


def candidate(connection, isolated, limits):
    """Run in the forked child: drop descriptors and privileges, then serve."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        own = os.dup2(connection.detach(), 3) if connection.fileno() != 3 else connection.detach()
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.closerange(own + 1, 1 << 16)
        isolated.settle(limits)
        serve(socket.socket(fileno=own))
    finally:
        os._exit(1)


def attend(control, isolated, limit):
    """Wait for the judge's byte or end; return True at once if the candidate's processes exceed `limit` bytes."""
    while not select.select([control], [], [], TICK)[0]:
        if isolation.descendants_hold_more(isolated.proc, limit):
            return True
    return False


def main():
    control = socket.socket(fileno=0)
    setting = wire.unpack(control.makefile("rb").read)
    os.umask(0o022)
    isolated = isolation.Confined() if setting["confined"] else isolation.Unconfined()
    try:
        isolated.enter(setting["parent"])
    except kernel.Refused as error:
        kind = "unsupported" if isinstance(error, kernel.Unsupported) else "refused"
        control.sendall(wire.pack([kind, str(error)]))
        return
    control.sendall(wire.pack(["ready", ""]))
    isolation.preload()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            os._exit(0)  # nothing to clean up, and the judge waits
        connection = socket.socket(fileno=descriptors[0])
        pid = isolated.fork()
        if pid == 0:
            candidate(connection, isolated, setting["limits"])
        connection.close()
        try:
            too_much = attend(control, isolated, setting["limits"]["memory_mb"] << 20)
        finally:
            isolated.end(pid)  # also on SystemExit
        control.recv(1)
        control.sendall(wire.TOO_MUCH_MEMORY if too_much else wire.OK)


if __name__ == "__main__":
    main()
