"""File access restricted without namespaces, by Landlock.

It takes Linux 5.13 and that it is switched on. Folders that are named can be read, one folder can be written too, and
nothing else can be opened or changed. Processes outside cannot be traced, nor, from Linux 6.12, signalled.
"""

import contextlib
import os
import struct

from kernel import Refused, call

# One number on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
RIGHTS_TO_FILES = (0, 13, 14, 15, 15, 16)  # how many of them a version knows; those after the fifth know no more
NO_ABSTRACT_SOCKETS, NO_SIGNALS = 1, 2


def version():
    """0: there is none, or it is switched off."""
    try:
        return call("syscall", CREATE_RULESET, None, 0, ASK_VERSION)
    except Refused:
        return 0


def prepare(*, readable, devices, writable):
    """A function that binds its caller, and all that it starts, to folders to read, devices, and a folder to write.

    That one needs no_new_privs. Where the kernel has no Landlock it does nothing. Raises Refused where it fails.
    """
    found = version()
    if not found:
        return lambda: None
    every = (1 << RIGHTS_TO_FILES[min(found, 5)]) - 1
    asked = struct.pack("=QQQ", every, 0, NO_ABSTRACT_SOCKETS | NO_SIGNALS if found >= 6 else 0)
    rules = call("syscall", CREATE_RULESET, asked, 24 if found >= 6 else 8, 0)
    allowed = [(path, EXECUTE | READ_FILE | READ_DIR) for path in readable]
    allowed += [(path, READ_FILE | WRITE_FILE) for path in devices]
    for path, rights in [*allowed, (writable, every)]:
        with contextlib.suppress(FileNotFoundError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            call("syscall", ADD_RULE, rules, BENEATH, struct.pack("=Qi", rights, place), 0)
            os.close(place)

    def restrict():
        call("syscall", RESTRICT_SELF, rules, 0)
        os.close(rules)

    return restrict
