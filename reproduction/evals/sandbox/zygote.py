"""The candidate's side: a warm process that forks one sandboxed child per program and never sees a test.

Started by the judge as a script in a fresh interpreter, with one end of a Unix socket as standard input. Over it come
the setting (once), then per program a socket of its own, on which the child finds the program and, afterwards, calls
to answer; another byte kills the child and all that it started, and is answered with OK or TOO_MUCH_MEMORY.
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

TICK = 0.01  # seconds between two looks at what a candidate and all that it started hold


def serve(connection):
    """In the child: read the program, run it, answer calls of its entry point until the judge hangs up."""
    read = connection.makefile("rb").read

    def answer(action):
        try:
            value = action()
        except BaseException as error:  # also SystemExit: the judge decides what it means
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
    """The forked child: shed everything, then serve."""
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
    """Until the judge says or is gone, or the candidate's processes hold more than `limit` bytes: True if they do."""
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
            os._exit(0)  # there is nothing to tidy, and the judge waits
        connection = socket.socket(fileno=descriptors[0])
        pid = isolated.fork()
        if pid == 0:
            candidate(connection, isolated, setting["limits"])
        connection.close()
        try:
            too_much = attend(control, isolated, setting["limits"]["memory_mb"] << 20)
        finally:
            isolated.end(pid)  # also when we are told to go
        control.recv(1)
        control.sendall(wire.TOO_MUCH_MEMORY if too_much else wire.OK)


if __name__ == "__main__":
    main()
