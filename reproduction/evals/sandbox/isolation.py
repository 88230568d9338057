"""What the kernel is asked for: namespaces, a root of its own, limits, and the loss of every privilege.

`Confined` needs CAP_SYS_ADMIN or unprivileged user namespaces, and Linux 5.12. `Unconfined` needs neither: limits, the
filter of system calls, for root another uid, and Landlock where the kernel has it. Both have one interface, used by
the zygote: `enter()` once, `fork()` per candidate (0 in the child), `settle()` in the child, `end(pid)` in the
parent.
"""

import contextlib
import ctypes
import glob
import os
import resource
import select
import signal
import sys

import landlock
import memory
import scratch
import seccomp
from kernel import Refused, call, succeeds

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 32, 4096, 16384, 1 << 18
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1  # one number on every architecture
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
CAPABILITY_VERSION_3 = 0x20080522
CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT, CAP_SYS_ADMIN = 0, 5, 6, 7, 18, 21
TO_CHANGE_UID = (CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID)

# Between the ranges that systemd's "Users, Groups, UIDs and GIDs" gives away: nobody logs in with these.
UIDS = range(60706, 61184)
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
DEVICES = ("/dev/null", "/dev/urandom")  # not zero: a shared mapping of it is memory that nobody counts
SCRATCH = "/scratch"
SCRATCH_BYTES = 16 << 20
POSIX_SHARED_MEMORY = "/dev/shm"
JOIN_SESSION_KEYRING = 1


def _mount(source, target, kind=None, *, flags=0, options=None):
    encoded = [x if x is None else x.encode() for x in (source, target, kind)]
    call("mount", *encoded, ctypes.c_ulong(flags), None if options is None else options.encode())


def die_with_parent(parent, by=signal.SIGKILL):
    """The caller gets the signal when its parent ends, and ends here if it has: `parent` is not our parent any more.

    To the kernel the parent is the thread that forked us, so that one has to live as long as we shall. A change of
    user or of capabilities takes this back: it comes last.
    """
    call("prctl", PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans():
    """Daemons below us become our children, so that `end_children` finds them; returns the descriptor that it takes."""
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return memory.open_proc()


def end_children(proc):
    """Kills all that the caller or its children have started."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in memory.children(proc, "self"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


def leave_keys():
    """A session keyring of our own, with no key of the caller's in it.

    It may be refused (a system without keys, or one that denies them to us too): candidates may not ask for keys.
    """
    succeeds("syscall", seccomp.number("keyctl"), JOIN_SESSION_KEYRING, None)


def limit(limits):
    """Process limits, soft and hard; `limits` is the dictionary of `pool.Limits`."""
    megabyte = 1 << 20
    for what, value in (
        (resource.RLIMIT_AS, limits["memory_mb"] * megabyte),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * megabyte),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CPU, int(limits["seconds"]) + 2),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    call("prctl", seccomp.PR_SET_THP_DISABLE, 1, 0, 0, 0)  # what is resident is then what is held


def drop_privileges(uid):
    """No capability, none to be had again, and `uid` in place of root. For anyone but root the uid stays."""
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
    """A uid of its own for each zygote, so that process limits bind and none can signal another."""
    return UIDS[os.getpid() % len(UIDS)]


class Confined:
    """Namespaces for user (where we lack capabilities), network, processes, mounts, IPC and host name; a read-only root
    that holds the standard library, the system's libraries and two devices; a scratch tmpfs per candidate."""

    def enter(self, parent):
        """Moves the caller into the namespaces (it returns in a child that dies with the caller) or raises Refused."""
        self._filter = seccomp.prepare()
        leave_keys()
        flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
        if _have((*TO_CHANGE_UID, CAP_SYS_CHROOT, CAP_SYS_ADMIN)):
            self.uid = _spare_uid()
            call("unshare", flags)
        else:
            self.uid, user, group = None, os.geteuid(), os.getegid()
            call("unshare", flags | CLONE_NEWUSER)
            for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
                _write(f"/proc/self/{name}", line)
        die_with_parent(parent)
        try:
            outside = os.pidfd_open(os.getpid())
            self._own_processes = self._enter_processes(outside)
            os.close(outside)
            self.proc = memory.open_proc()
            self._build_root()
        except OSError as error:
            raise Refused(f"building the sandbox's root failed: {error}") from None

    @staticmethod
    def _enter_processes(outside):
        """The process namespace, of which a child of ours is the first process: it goes on, we wait for its end."""
        pid = os.fork()
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
        die_with_parent(0)  # no process in here has a parent: whether it lives, its descriptor tells
        if select.select([outside], [], [], 0)[0]:
            os._exit(1)
        return os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def _build_root(self):
        visible = _libraries()
        links = {p: os.path.realpath(p) for p in LIBRARIES if os.path.islink(p)}
        devices = [d for d in DEVICES if os.path.exists(d)]
        _mount(None, "/", flags=MS_REC | MS_PRIVATE)
        root = "/proc"  # there everywhere, holds nothing that we bind, and is of no more use to us
        _mount("sandbox", root, "tmpfs", flags=MS_NOSUID, options="size=1m,mode=755")
        for path in visible:
            os.makedirs(root + path)
            _mount(path, root + path, flags=MS_BIND | MS_REC)
        for path in _installed_packages(visible):  # benchmarks and their answers may be among them
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
        os.chroot(root)  # and a process in a chroot may not make a user namespace, so no capability comes back
        os.chdir("/")

    def fork(self):
        call("unshare", CLONE_NEWPID)
        pid = os.fork()
        if pid:  # back to our own namespace: the next candidate gets another one
            call("setns", self._own_processes, CLONE_NEWPID)
        return pid

    def settle(self, limits):
        call("unshare", CLONE_NEWNS | CLONE_NEWIPC)
        owner = 0 if self.uid is None else self.uid
        options = f"size={SCRATCH_BYTES},nr_inodes=1024,mode=700,uid={owner},gid={owner}"
        _mount("scratch", SCRATCH, "tmpfs", flags=MS_NOSUID | MS_NODEV, options=options)
        os.chdir(SCRATCH)
        limit(limits)
        drop_privileges(self.uid)
        self._filter()

    def end(self, pid):
        """Kills the candidate; it is the init of its process namespace, so whatever it started dies too."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Unconfined:
    """Limits, another uid where we are root, no new privileges, no socket but pairs, and what Landlock takes away."""

    def enter(self, parent):
        self._filter = seccomp.prepare()
        self.uid = _spare_uid() if os.geteuid() == 0 else None
        if self.uid is not None and not _have(TO_CHANGE_UID):
            raise Refused("root without the capabilities to run a program under another uid and to end it")
        leave_keys()
        self.proc = adopt_orphans()
        self._readable = _libraries()
        scratch.sweep({os.geteuid()} if self.uid is None else {os.geteuid(), *UIDS})
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        die_with_parent(parent, signal.SIGTERM)

    def fork(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `end` is called: who else finds the daemons?
        self._scratch, self._lock = scratch.make(self.uid)
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._parent = parent
        return pid

    def settle(self, limits):
        os.chdir(self._scratch)
        limit(limits)
        restrict = landlock.prepare(readable=self._readable, devices=DEVICES, writable=self._scratch)
        drop_privileges(self.uid)
        restrict()
        die_with_parent(self._parent)
        self._filter()

    def end(self, pid):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(pid, signal.SIGKILL)
        end_children(self.proc)
        scratch.remove(self._scratch)
        os.close(self._lock)
        if self.uid is not None:
            _remove_files_of(self.uid, POSIX_SHARED_MEMORY)


def _remove_files_of(uid, folder):
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    os.unlink(entry.path)


def _libraries():
    """The folders that hold the standard library and the libraries of the system that it needs."""
    return _without_nested({os.path.realpath(p) for p in (*LIBRARIES, *sys.path, f"{sys.base_prefix}/lib")})


def _write(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise Refused(f"writing {path} failed: {error.strerror}") from None


def _without_nested(paths):
    """Existing directories, parents before and in place of what lies in them."""
    kept = []
    for path in sorted(p for p in paths if os.path.isdir(p)):
        if not any(path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept


def _installed_packages(visible):
    return [p for top in visible for p in glob.glob(f"{top}/python3*/*-packages") if os.path.isdir(p)]
