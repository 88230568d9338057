"""Child processes that end with their parent, even if SIGKILL ends it.

    python orphans.py <process id of the parent> <module> <arguments>      the result of `command`

runs the module like `python -m`. The child is bound to its parent before any slow import. On Linux the kernel ends it;
elsewhere a thread polls the parent, with delay while a library holds the interpreter.

The kernel watches the parent's thread: the thread that starts a process must wait for its end.
"""

import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module in a Python process that ends with this one."""
    return [os.path.abspath(__file__), str(os.getpid()), module, *arguments]


def end_with(parent: int) -> None:
    """Kill this process, but not its own children, when the parent with this process id ends or has ended."""
    if not _bound_by_kernel():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # the parent ended before prctl
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
    """Put this package's root on sys.path before other copies; its modules must not hide the standard library."""
    own = os.path.dirname(os.path.abspath(__file__))
    root, package = os.path.split(own)
    if own in sys.path:  # the script's folder, absent under `python -P`
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
