"""Calls of libc, a filter of system calls (seccomp), and Landlock, for which Python has no functions.

The filter is a deny-list, since the calls that a Python solution needs are not known in advance. Refused with EPERM:
System V shared memory, semaphores and message queues, POSIX queues, memfds and shared mappings without a file (memory
that process limits do not count, or that outlives the process); keys; namespaces, mounts and other roots; access to
other processes; io_uring, bpf, userfaultfd, perf and similar kernel interfaces; system administration. Sockets are
limited to connected pairs, and their buffers cannot be enlarged. Huge pages stay off: a mostly freed one stays resident
as a whole. clone3 and calls newer than this list are "not implemented", so that libc falls back to clone, whose flags a
filter can read. A process of another architecture (32-bit, x32) is killed.

Landlock (Linux 5.13, if switched on) restricts files without namespaces: only named folders can be read, and one of
them written. Processes outside cannot be traced, nor, from Linux 6.12, signalled.
"""

import contextlib
import ctypes
import errno
import os
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The system refuses a request, named in the message."""


class Unsupported(Refused):
    """The refused request is needed by every confinement."""


def call(name, *arguments):
    """Call a function of libc and return its result. Raises Refused on failure."""
    result = getattr(_libc, name)(*arguments)
    if result == -1:
        raise Refused(f"{name} failed: {os.strerror(ctypes.get_errno())}")
    return result


def succeeds(name, *arguments):
    return getattr(_libc, name)(*arguments) != -1


ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # bit set in call numbers of x86_64's x32 variant
NEWEST = 469  # last call known to this list (Linux 6.18); from 424 on numbers are the same everywhere

# Numbers of refused calls on x86_64 and on aarch64; None if there is no such call.
NUMBERS = {
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "vmsplice": (278, 75),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "set_mempolicy_home_node": (450, 450),
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458), "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "io_setup": (206, 0), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "seccomp": (317, 277),
    "personality": (135, 92), "modify_ldt": (154, None), "uselib": (134, None), "_sysctl": (156, None),
    "iopl": (172, None), "ioperm": (173, None), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "acct": (163, 89), "syslog": (103, 116),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "swapon": (167, 224), "swapoff": (168, 225),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58),
}  # fmt: skip
# Calls that are allowed or refused by their arguments.
CLONE, CLONE3, PRCTL, MMAP = (56, 220), (435, 435), (157, 167), (9, 222)
SOCKET, SOCKETPAIR, SETSOCKOPT = (41, 198), (53, 199), (54, 208)

NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, …CGROUP, …UTS, …IPC, …USER, …PID, …NET
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_THP_DISABLE, MODE_FILTER = 1, 22, 41, 2
AF_UNIX, SOCK_STREAM, SOCK_TYPE_MASK, SO_SNDBUF = 1, 1, 0xF, 7
MAP_PRIVATE, MAP_TYPE, MAP_ANONYMOUS = 2, 0xF, 0x20

# Classic BPF instructions, and offsets in the data that they read.
LOAD, AND, RETURN, EQUAL, AT_LEAST, ANY_BIT = 0x20, 0x54, 0x06, 0x15, 0x35, 0x45
AT_NUMBER, AT_ARCHITECTURE, AT_ARGUMENTS = 0, 4, 16
KILL, ALLOW = 0x80000000, 0x7FFF0000


def _refuse(code):
    return (RETURN, 0, 0, 0x00050000 | code)


def filter_program(machine):
    """Return the filter for a machine (`os.uname().machine`): instructions (code, jump if true, if false, constant).

    Raises Unsupported for a machine without listed numbers.
    """
    if machine not in ARCHITECTURES or sys.byteorder != "little":
        raise Unsupported(f"no list of system calls to refuse on {machine} ({' and '.join(ARCHITECTURES)} have one)")
    column = list(ARCHITECTURES).index(machine)
    allow, kill, refuse = (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL), _refuse(errno.EPERM)
    no_family = _refuse(errno.EAFNOSUPPORT)

    def argument(index):  # lower half: the arguments used here are int, or flags that fit
        return (LOAD, 0, 0, AT_ARGUMENTS + 8 * index)

    def rule(numbers, *body):
        return [] if numbers[column] is None else [(EQUAL, 0, len(body), numbers[column]), *body]

    of_unix = (argument(0), (EQUAL, 1, 0, AF_UNIX), no_family)
    stream = (argument(1), (AND, 0, 0, SOCK_TYPE_MASK), (EQUAL, 1, 0, SOCK_STREAM), refuse)  # others can be redirected
    return [
        (LOAD, 0, 0, AT_ARCHITECTURE),
        *((EQUAL, 1, 0, ARCHITECTURES[machine]), kill),
        (LOAD, 0, 0, AT_NUMBER),
        *((AT_LEAST, 0, 1, X32), kill),
        *((AT_LEAST, 0, 1, NEWEST + 1), _refuse(errno.ENOSYS)),
        *rule(CLONE3, _refuse(errno.ENOSYS)),
        *rule(CLONE, argument(0), (ANY_BIT, 0, 1, NEW_NAMESPACES), refuse, allow),
        *rule(MMAP, argument(3), (ANY_BIT, 1, 0, MAP_ANONYMOUS), allow,
              (AND, 0, 0, MAP_TYPE), (EQUAL, 1, 0, MAP_PRIVATE), refuse, allow),
        *rule(PRCTL, argument(0), (EQUAL, 1, 0, PR_SET_PDEATHSIG), (EQUAL, 0, 1, PR_SET_THP_DISABLE), refuse, allow),
        *rule(SOCKET, no_family),
        *rule(SOCKETPAIR, *of_unix, *stream, allow),
        *rule(SETSOCKOPT, argument(2), (EQUAL, 0, 1, SO_SNDBUF), refuse, allow),
        *(instruction for numbers in NUMBERS.values() for instruction in rule(numbers, refuse)),
        allow,
    ]  # fmt: skip


def prepare_filter():
    """Return a function that irrevocably installs the filter in its caller, which needs no_new_privs.

    Raises Unsupported if this machine or its kernel has no filter.
    """
    code = b"".join(struct.pack("=HBBI", *each) for each in filter_program(os.uname().machine))
    if not succeeds("prctl", PR_SET_SECCOMP, MODE_FILTER, None) and ctypes.get_errno() != errno.EFAULT:
        raise Unsupported("the kernel takes no filter of system calls (seccomp)")  # EFAULT: None is no filter
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    return lambda _keep=buffer: call("prctl", PR_SET_SECCOMP, MODE_FILTER, pointer)


def number_here(numbers):
    """Return a call's number on this machine."""
    return numbers[list(ARCHITECTURES).index(os.uname().machine)]


# Landlock: the numbers of its calls are the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
RIGHTS_TO_FILES = (0, 13, 14, 15, 15, 16)  # number of rights by version; versions after the fifth add none
NO_ABSTRACT_SOCKETS, NO_SIGNALS = 1, 2


def landlock_version():
    """Return the version of Landlock, 0 if it is missing or switched off."""
    try:
        return call("syscall", CREATE_RULESET, None, 0, ASK_VERSION)
    except Refused:
        return 0


def prepare_landlock(*, readable, devices, writable):
    """Return a function that restricts its caller and its descendants to readable folders, devices, a writable folder.

    The caller needs no_new_privs. Without Landlock the function does nothing. Raises Refused on failure.
    """
    version = landlock_version()
    if not version:
        return lambda: None
    every = (1 << RIGHTS_TO_FILES[min(version, 5)]) - 1
    attributes = struct.pack("=QQQ", every, 0, NO_ABSTRACT_SOCKETS | NO_SIGNALS if version >= 6 else 0)
    rules = call("syscall", CREATE_RULESET, attributes, 24 if version >= 6 else 8, 0)
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
