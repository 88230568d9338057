"""Processes that end with the one that started them, however that ends: also by a signal that cannot be caught.

    python orphans.py <process id of the parent> <module> <arguments>      what `command` gives

runs the module as `python -m` would, and is bound to its parent before anything is imported that takes time. On Linux
the kernel ends it; elsewhere a thread looks after the parent, and is late where a library holds the interpreter.

The kernel goes by the parent's thread: what starts a process must wait for its end in the same thread.
"""

import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
SECONDS = 0.5
"""Between two looks of the thread."""


def command(module: str, *arguments: str) -> list[str]:
    """The arguments of a Python interpreter for a module that ends with this process."""
    return [os.path.abspath(__file__), str(os.getpid()), module, *arguments]


def end_with(parent: int) -> None:
    """From now on this process is killed when its parent, of this process id, ends; at once where it has already.

    That holds for this process alone: what it starts must call this itself.
    """
    if not _asked_of_the_kernel():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel was asked
        _end()


def _asked_of_the_kernel() -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    return ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _find_this_package() -> None:
    """Let this package be imported, before another copy of it, and hide no module of the standard library."""
    own = os.path.dirname(os.path.abspath(__file__))
    root, package = os.path.split(own)
    if own in sys.path:  # the script's folder, unless the interpreter was told to leave that out
        sys.path.remove(own)
    copies = (place for place, each in enumerate(sys.path) if os.path.isdir(os.path.join(each, package)))
    sys.path.insert(next(copies, len(sys.path)), root)


def _main() -> None:
    _, parent, module, *arguments = sys.argv
    end_with(int(parent))
    _find_this_package()
    sys.argv[:] = [module, *arguments]
    import runpy

    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
