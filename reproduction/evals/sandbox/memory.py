"""Who descends from a process and how much memory they hold together, from /proc.

A limit of the kernel's binds the address space of one process and not what all that it starts hold. A control group
(cgroup v2) would, but there is none that we may rightly make: one below our own group gets no memory controller, since
our group has processes, and one beside it leaves the limits of the job that we are part of, and is systemd's to make;
so the zygote polls.
"""

import contextlib
import os

_LABELS = ("VmRSS:", "VmSwap:", "Pss:", "SwapPss:")  # in status, and in smaps_rollup


def open_proc():
    """A descriptor of /proc, which still works when /proc is out of sight."""
    return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def exceeds(proc, limit):
    """Whether the caller's descendants hold more than `limit` bytes, swapped ones too; one alone is not looked at.

    Pages that several share count once, or, where we may not see which are shared (root without CAP_SYS_PTRACE),
    once for each.
    """
    family = list(descendants(proc, "self"))
    if len(family) < 2 or sum(_bytes(proc, pid, "status") for pid in family) <= limit:  # the quick look suffices
        return False
    return sum(_bytes(proc, pid, "smaps_rollup", "status") for pid in family) > limit


def descendants(proc, pid):
    """Ids of a process's children, their children and so on, numbered as `proc` does; "self" is the caller."""
    for child in children(proc, pid):
        yield child
        yield from descendants(proc, child)


def children(proc, pid):
    with _opened(f"{pid}/task", proc) as tasks:
        if tasks is None:
            return []
        lists = [_read(tasks, f"{task}/children") for task in os.listdir(tasks)]
    if any(each is not None for each in lists):
        return " ".join(filter(None, lists)).split()
    return _children_by_search(proc, os.readlink("self", dir_fd=proc) if pid == "self" else pid)


def _children_by_search(proc, pid):
    """For kernels without lists of children (CONFIG_PROC_CHILDREN), and processes that just ended."""
    found = []
    for other in filter(str.isdigit, os.listdir(proc)):
        _, _, fields = (_read(proc, f"{other}/stat") or "").rpartition(")")
        if fields.split()[1:2] == [pid]:
            found.append(other)
    return found


def _bytes(proc, pid, *names):
    """What a process holds, by the first of the files that we may read."""
    text = next(filter(None, (_read(proc, f"{pid}/{name}") for name in names)), "")
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(_LABELS)) << 10


@contextlib.contextmanager
def _opened(name, folder):
    try:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(folder, name):
    """The text of a file of /proc, or None where it is not there (any more) or not for us."""
    with _opened(name, folder) as file, contextlib.suppress(OSError):
        if file is not None:
            return os.read(file, 1 << 16).decode()
    return None
