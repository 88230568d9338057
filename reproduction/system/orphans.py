"""Processes that end with the one that started them, however that ends: also by a signal that cannot be caught.

    python orphans.py <process id of the parent> <module> <arguments>      what `command` gives

runs the module as `python -m` would, and is bound to its parent before anything is imported that takes time. On Linux
the kernel ends it; elsewhere a thread watches the parent, and is late where a library holds the interpreter.

The kernel goes by the parent's thread: what starts a process must wait for its end in the same thread.
"""

import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1


def command(module: str, *arguments: str) -> list[str]:
    """The arguments of a Python interpreter for a module that ends with this process."""
    return [os.path.abspath(__file__), str(os.getpid()), module, *arguments]


def end_with(parent: int) -> None:
    """Have this process, but none that it starts, killed when its parent, of this process id, ends or has ended."""
    if not _bound_by_kernel():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _bound_by_kernel() -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    return ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _find_this_package() -> None:
    """Let this package be imported, before another copy of it, and hide no module of the standard library."""
    own = os.path.dirname(os.path.abspath(__file__))
    root, package = os.path.split(own)
    if own in sys.path:  # the script's folder, unless the interpreter was told to leave that out
        sys.path.remove(own)
    copies = (index for index, path in enumerate(sys.path) if os.path.isdir(os.path.join(path, package)))
    sys.path.insert(next(copies, len(sys.path)), root)


if __name__ == "__main__":
    _, _parent, _module, *_arguments = sys.argv
    end_with(int(_parent))
    _find_this_package()
    sys.argv[:] = [_module, *_arguments]
    import runpy

    runpy.run_module(_module, run_name="__main__", alter_sys=True)
