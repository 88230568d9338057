"""Calls of libc and the kernel that Python does not have, through ctypes, and what is raised where one is refused."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The system does not give what is asked of it; the message says what."""


class Unsupported(Refused):
    """What is refused is needed by every confinement."""


def call(name, *arguments):
    """What the function of libc returns. Raises Refused where it fails."""
    result = getattr(_libc, name)(*arguments)
    if result == -1:
        raise Refused(f"{name} failed: {os.strerror(ctypes.get_errno())}")
    return result


def succeeds(name, *arguments):
    return getattr(_libc, name)(*arguments) != -1
