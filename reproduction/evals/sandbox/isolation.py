"""Confinement of a candidate: namespaces, its own root, limits, and the loss of every privilege.

`Confined` needs CAP_SYS_ADMIN or unprivileged user namespaces, and Linux 5.12. `Unconfined` needs neither: limits, the
filter of system calls, another uid for root, and Landlock if the kernel has it. The zygote uses both in the same way:
`enter()` once, `fork()` per candidate (0 in the child), `settle()` in the child, `end(pid)` in the parent.
"""

import contextlib
import ctypes
import fcntl
import gc
import glob
import os
import resource
import secrets
import select
import signal
import sys
import tempfile

import kernel
from kernel import Refused, call, succeeds

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1  # one number on every architecture
PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 24, 36, 38
CAPABILITY_VERSION_3 = 0x20080522
CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT, CAP_SYS_ADMIN = 0, 5, 6, 7, 18, 21
TO_CHANGE_UID = (CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID)
JOIN_SESSION_KEYRING = 1

# Unused by systemd's "Users, Groups, UIDs and GIDs": nobody logs in with these.
UIDS = range(60706, 61184)
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
DEVICES = ("/dev/null", "/dev/urandom")  # not /dev/zero: its shared mappings are uncounted memory
SCRATCH = "/scratch"
SCRATCH_BYTES = 16 << 20
LEFT_OVER = "idlora-sandbox-"  # prefix of scratch folders without their own mount


def preload():
    """Import common modules once instead of in every child; call last before forking."""
    import bisect, collections, copy, datetime, functools, hashlib, heapq, itertools, json  # noqa: E401, F401, I001
    import math, operator, random, re, statistics, string, typing  # noqa: E401, F401

    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, all of our pages


def die_with_parent(parent, by=signal.SIGKILL):
    """Get the signal `by` when the parent ends; exit if it has already ended, so that `parent` is not our parent.

    For the kernel the parent is the thread that forked us; it must outlive us. A change of user or capabilities resets
    this: call it last.
    """
    call("prctl", kernel.PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def open_proc():
    """Open a descriptor of /proc that still works after the root has changed."""
    return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def adopt_orphans():
    """Make descendants' daemons our children; return the /proc descriptor that `end_children` needs."""
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return open_proc()


def end_children(proc):
    """Kill all descendants of the caller."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in children(proc, "self"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


def children(proc, pid):
    """Return the ids of a process's children in the namespace of `proc`; "self" is the caller."""
    try:
        with _opened(f"{pid}/task", proc) as tasks:
            lists = [_read(tasks, f"{task}/children") for task in os.listdir(tasks)]
    except FileNotFoundError:  # it ended; searching every process for its children would take longer than a tick
        return []
    except OSError:
        lists = []
    if any(each is not None for each in lists):
        return " ".join(filter(None, lists)).split()
    return _children_by_search(proc, os.readlink("self", dir_fd=proc) if pid == "self" else pid)


def _children_by_search(proc, pid):
    """Like `children`, for kernels without CONFIG_PROC_CHILDREN and processes that just ended."""
    numbers = filter(str.isdigit, os.listdir(proc))
    stats = ((number, (_read(proc, f"{number}/stat") or "").rpartition(")")[2].split()) for number in numbers)
    return [number for number, fields in stats if fields[1:2] == [pid]]


def descendants_hold_more(proc, limit):
    """Whether the caller's descendants hold more than `limit` bytes, swap included; a single one is not checked.

    The address-space limit applies per process. A control group would limit their sum, but we cannot make one: below
    our own group it gets no memory controller, since our group has processes, and beside it it would escape the limits
    of our job. So the zygote polls. Shared pages count once, or once per process if we cannot see which pages are
    shared (root without CAP_SYS_PTRACE).
    """
    family = children(proc, "self")
    for pid in family:  # grows in the loop
        family += children(proc, pid)
    if len(family) < 2 or sum(_held(proc, pid, "status") for pid in family) <= limit:  # an upper bound, and quick
        return False
    return sum(_held(proc, pid, "smaps_rollup", "status") for pid in family) > limit


def _held(proc, pid, *names):
    """Return the bytes that a process holds, from the first readable file."""
    text = next(filter(None, (_read(proc, f"{pid}/{name}") for name in names)), "")
    labels = ("VmRSS:", "VmSwap:", "Pss:", "SwapPss:")  # in status, and in smaps_rollup
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(labels)) << 10


@contextlib.contextmanager
def _opened(name, folder=None, flags=os.O_RDONLY):
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(folder, name):
    """Return the text of a file in /proc, or None if it is missing or not readable."""
    with contextlib.suppress(OSError), _opened(name, folder) as file:
        return os.read(file, 1 << 16).decode()
    return None


def leave_keys():
    """Join a new session keyring without the caller's keys.

    Failure is harmless (a system without keys, or one that denies them to us): candidates cannot request keys.
    """
    succeeds("syscall", kernel.number_here(kernel.NUMBERS["keyctl"]), JOIN_SESSION_KEYRING, None)


def limit(limits):
    """Set soft and hard process limits; `limits` is `pool.Limits` as a dictionary."""
    for what, value in (
        (resource.RLIMIT_AS, limits["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, limits["file_mb"] << 20),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CPU, int(limits["seconds"]) + 2),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    call("prctl", kernel.PR_SET_THP_DISABLE, 1, 0, 0, 0)  # so that resident memory is what the process holds


def drop_privileges(uid):
    """Drop all capabilities for good, and change to `uid` unless it is None (we are not root)."""
    capability = 0
    while succeeds("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0):
        capability += 1
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _have(capabilities):
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    return all(effective >> capability & 1 for capability in capabilities)


def _spare_uid():
    """Return a uid per zygote, so that process limits apply and none can signal another."""
    return UIDS[os.getpid() % len(UIDS)]


def _libraries():
    """Return the folders of the standard library and the system's libraries, none nested in another."""
    paths = {os.path.realpath(path) for path in (*LIBRARIES, *sys.path, f"{sys.base_prefix}/lib")}
    found = []
    for path in sorted(filter(os.path.isdir, paths)):
        if not any(path.startswith(f"{parent}/") for parent in found):
            found.append(path)
    return found


def _mount(source, target, kind=None, *, flags=0, options=None):
    encoded = [x if x is None else x.encode() for x in (source, target, kind)]
    call("mount", *encoded, ctypes.c_ulong(flags), None if options is None else options.encode())


class Confined:
    """Namespaces for user (if we lack capabilities), network, processes, mounts, IPC and host name; a read-only root
    with the standard library, the system's libraries and two devices; a scratch tmpfs per candidate."""

    def enter(self, parent):
        """Enter the namespaces and return in a child that dies with the caller, or raise Refused."""
        self._filter = kernel.prepare_filter()
        leave_keys()
        flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
        try:
            if _have((*TO_CHANGE_UID, CAP_SYS_CHROOT, CAP_SYS_ADMIN)):
                self.uid = _spare_uid()
                call("unshare", flags)
            else:
                self.uid, user, group = None, os.geteuid(), os.getegid()
                call("unshare", flags | CLONE_NEWUSER)
                for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
                    with open(f"/proc/self/{name}", "w") as file:
                        file.write(line)
            die_with_parent(parent)
            outside = os.pidfd_open(os.getpid())
            self._own_processes = self._enter_processes(outside)
            os.close(outside)
            self.proc = open_proc()
            self._build_root()
        except OSError as error:
            raise Refused(f"building the sandbox failed: {error}") from None

    @staticmethod
    def _enter_processes(outside):
        """Enter the process namespace: a child becomes its first process and returns, the caller waits for it."""
        pid = os.fork()
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
        die_with_parent(0)  # the parent is invisible in here: its pidfd tells whether it lives
        if select.select([outside], [], [], 0)[0]:
            os._exit(1)
        return os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def _build_root(self):
        visible = _libraries()
        links = {p: os.path.realpath(p) for p in LIBRARIES if os.path.islink(p)}
        packages = [p for top in visible for p in glob.glob(f"{top}/python3*/*-packages") if os.path.isdir(p)]
        devices = [d for d in DEVICES if os.path.exists(d)]
        _mount(None, "/", flags=MS_REC | MS_PRIVATE)
        root = "/proc"  # exists everywhere, holds nothing that we bind, and is not needed any more
        _mount("sandbox", root, "tmpfs", flags=MS_NOSUID, options="size=1m,mode=755")
        for path in visible:
            os.makedirs(root + path)
            _mount(path, root + path, flags=MS_BIND | MS_REC)
        for path in packages:  # they may contain benchmarks with answers
            _mount("sandbox", root + path, "tmpfs", flags=MS_NOSUID | MS_NODEV, options="size=0,mode=755")
        os.makedirs(root + "/dev")
        for path in devices:
            os.close(os.open(root + path, os.O_CREAT))
            _mount(path, root + path, flags=MS_BIND)
        for path, target in links.items():
            if not os.path.lexists(root + path):
                os.makedirs(os.path.dirname(root + path), exist_ok=True)
                os.symlink(target, root + path)
        os.mkdir(root + SCRATCH)
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
        call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, root.encode(), AT_RECURSIVE, attributes, ctypes.sizeof(attributes))
        os.chroot(root)  # in a chroot no user namespace can be made, so no capability comes back
        os.chdir("/")

    def fork(self):
        call("unshare", CLONE_NEWPID)
        pid = os.fork()
        if pid:  # back to our own namespace: the next candidate gets a new one
            call("setns", self._own_processes, CLONE_NEWPID)
        return pid

    def settle(self, limits):
        call("unshare", CLONE_NEWNS | CLONE_NEWIPC)
        owner = self.uid or 0
        options = f"size={SCRATCH_BYTES},nr_inodes=1024,mode=700,uid={owner},gid={owner}"
        _mount("scratch", SCRATCH, "tmpfs", flags=MS_NOSUID | MS_NODEV, options=options)
        os.chdir(SCRATCH)
        limit(limits)
        drop_privileges(self.uid)
        self._filter()

    def end(self, pid):
        """Kill the candidate; as init of its process namespace it takes all descendants with it."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Unconfined:
    """Limits, another uid if we are root, no new privileges, no sockets except pairs, and Landlock."""

    def enter(self, parent):
        self._filter = kernel.prepare_filter()
        self.uid = _spare_uid() if os.geteuid() == 0 else None
        if self.uid is not None and not _have(TO_CHANGE_UID):
            raise Refused("root without the capabilities to run a program under another uid and to end it")
        leave_keys()
        self.proc = adopt_orphans()
        self._readable = _libraries()
        sweep_scratch({os.geteuid()} if self.uid is None else {os.geteuid(), *UIDS})
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        die_with_parent(parent, signal.SIGTERM)

    def fork(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `end` is called, which finds the daemons
        self.scratch, self._lock = make_scratch(self.uid)
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._parent = parent
        return pid

    def settle(self, limits):
        os.chdir(self.scratch)
        limit(limits)
        restrict = kernel.prepare_landlock(readable=self._readable, devices=DEVICES, writable=self.scratch)
        drop_privileges(self.uid)
        restrict()
        die_with_parent(self._parent)
        self._filter()

    def end(self, pid):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(pid, signal.SIGKILL)
        end_children(self.proc)
        remove_scratch(self.scratch)
        os.close(self._lock)
        if self.uid is not None:  # leftovers that Landlock would have prevented
            for name in os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else ():
                with contextlib.suppress(OSError):
                    if os.lstat(f"/dev/shm/{name}").st_uid == self.uid:
                        os.unlink(f"/dev/shm/{name}")


def make_scratch(uid):
    """Create a folder owned by `uid` (unless None); return its path and the descriptor that holds its lock.

    The kernel releases the lock however the zygote ends: an unlocked folder is a leftover. The folder gets its final
    name only when it is locked, so that no other zygote removes it in between.
    """
    made = tempfile.mkdtemp(prefix="new-" + LEFT_OVER)
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # on a file system without locks nothing is swept
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path = os.path.join(os.path.dirname(made), LEFT_OVER + secrets.token_hex(8))
    os.rename(made, path)
    if uid is not None:
        os.chown(path, uid, uid)
    return path, lock


def remove_scratch(path):
    """Remove an ended candidate's folder, whatever its depth and permissions; its verdict does not depend on that."""
    # Not shutil.rmtree, which has a recursion limit. Root does not need the chmod.
    for command in (["chmod", "-R", "u+rwx", path], ["rm", "-rf", path])[os.geteuid() == 0 :]:
        with contextlib.suppress(OSError):
            os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)


def sweep_scratch(owners):
    """Remove unlocked folders that belong to one of `owners` (uids)."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW  # skips links and pipes of that name
    for path in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), LEFT_OVER + "*")):
        with contextlib.suppress(OSError), _opened(path, flags=flags) as place:
            if os.fstat(place).st_uid in owners:
                os.chmod(f"/proc/self/fd/{place}", 0o700)  # by descriptor: the name may be a link by now
                with _opened(f"/proc/self/fd/{place}") as folder:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_scratch(path)
