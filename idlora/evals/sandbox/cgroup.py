"""A control group for the zygote and all that it starts, where we may make one (cgroup v2): an exact bound on memory.

Root on a machine of its own may, and a user whose session the system's manager gave the memory controller; a user of a
cluster or in a container mostly may not. So it comes on top of what `memory` does and is never asked for.
"""

import contextlib
import os

ROOM = 64 << 20  # bytes beyond the limit: the zygote itself, scratch, the kernel's own


def make(limit, top=None, own=None):
    """A group that holds `limit` bytes and ROOM, without swap: its folder, or None where there is none to be had.

    It lies beside our own group or further up: the root alone may have both groups and processes. `top` and `own`:
    where the hierarchy is mounted and our place in it, by default as /proc says. Folders of processes that were
    killed are removed on the way.
    """
    if top is None:
        top, own = _ours()
    places = [own or "/"]
    while places[-1] != "/":
        places.append(os.path.dirname(places[-1]))
    for place in (places[1:] or places) if top else ():
        parent = os.path.normpath(f"{top}/{place}")
        if "memory" in _read(f"{parent}/cgroup.subtree_control").split():
            _remove_abandoned(parent)
            group = f"{parent}/sandbox-{os.getpid()}"
            try:
                os.mkdir(group)
                _write(f"{group}/memory.max", limit + ROOM)
            except OSError:
                remove(group)
                continue
            with contextlib.suppress(OSError):  # where there is no swap there is no limit of it
                _write(f"{group}/memory.swap.max", 0)
            return group
    return None


def put(group, pid):
    """Moves a process into the group, once and not for each candidate: a move takes the kernel as long as a program."""
    with contextlib.suppress(OSError):
        _write(f"{group}/cgroup.procs", pid)


def kills(group):
    """How many of the group's processes the kernel has ended for want of memory."""
    counts = dict(line.split() for line in _read(f"{group}/memory.events").splitlines())
    return int(counts.get("oom_kill", 0))


def remove(group):
    with contextlib.suppress(OSError):  # some process in it may just be ending: the next start finds the folder
        os.rmdir(group)


def _ours():
    mounts = [line.split() for line in _read("/proc/self/mountinfo").splitlines() if " - cgroup2 " in line]
    lines = [line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::/")]
    return (mounts[0][4], lines[0]) if mounts and lines and mounts[0][3] == "/" else (None, None)


def _remove_abandoned(parent):
    for name in os.listdir(parent):
        kind, _, pid = name.partition("-")
        if kind == "sandbox" and not os.path.exists(f"/proc/{pid}"):
            remove(f"{parent}/{name}")


def _read(path):
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read()
    return ""


def _write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        file.write(str(value))
