"""Sandbox for model-written code, which can neither do harm nor forge the verdict on its test.

    pool (our process) ── jobs, outcomes ──> judge ── a socket per program ──> candidate, forked by the zygote
                                             trusted: test                     untrusted: prompt + completion

The test runs in the judge and calls the candidate through a proxy. Only plain values are transferred (`wire`), by value
in both directions: an object with a false __eq__ arrives as the plain value that it holds or is rejected, and the
candidate has neither the test's frames nor its text in memory. An early exit, a rejected value and a missing answer are
failures. Whatever a candidate writes to the socket can only be a return value.

The kernel gives the candidate's process: its own process namespace (all that it starts dies with it), a network
namespace without even a loopback, IPC and host-name namespaces, a read-only root with the standard library, the
system's libraries and two devices (no /proc, home, shared memory or installed packages, so no benchmark to look answers
up in), 16 MiB of scratch that vanish with it, no capability and no way to gain one, its own session keyring, a filter
of system calls (`kernel`), another uid if we are root, limits on address space, CPU time, processes, file size and open
files, an empty environment, no inherited descriptor except its socket, and a wall-clock limit enforced from outside.
Memory that process limits do not count is unavailable: shared memory, memfds and shared mappings without a file are
refused, huge pages are off. The zygote measures the memory of a candidate and its descendants every 10 ms and kills
them above the limit; the outcome is "memory".

If the system refuses any of this, nothing runs, unless `allow_network_unconfined` is given. Then only the parts without
namespaces apply: the filter, which allows no sockets except connected pairs, the keyring, the limits, another uid (as
root), the killing of all descendants, and, if the kernel has Landlock, no files except the libraries and the scratch
folder. Only a refusal reported by the zygote counts: if the sandbox fails to start for another reason, a second attempt
is made, then an error raised. A program that imports from the standard library runs first; if it fails, nothing else
runs. Every outcome says how its program was confined.

Nothing outlives its parent: the kernel signals judge, test, zygote and candidate when their parent ends. A candidate's
descendants end with its process namespace, or are killed by the zygote, or by the judge if the zygote was killed. A
scratch folder left behind by a kill is removed at the next start.

Candidates and tests can import only the standard library. Hash seed and random seed are fixed. Threads, asyncio,
os.fork, socket pairs, sqlite3 and files in the working folder work. mmap.mmap(-1, n), which is shared memory without
MAP_PRIVATE, does not; nor do locks, queues and pools of multiprocessing, nor subprocess, since there is no program to
start.

What the sandbox does not cover:
- Kernel bugs in the allowed system calls. Against deliberate attacks, use a virtual machine.
- The machine as a whole: a candidate may hold its limit of memory and, for the 10 ms between two measurements, up to
  `processes` times as much, in one sandbox per usable CPU. The kernel's buffers of its pipes and socket pairs (64
  descriptors per process) add to that. CPU time is shared fairly, not reserved; the page cache and side channels
  between processes remain.
- System libraries and the standard library can be read.
- If we are not root, a candidate has our uid inside its namespaces, and our supplementary groups.
- The judge trusts the benchmark: prompts and tests run in it with our rights. A test that catches every Exception, or
  passes on wrong values, passes here too.
- A candidate that has memorised the expected answers passes.
- Unconfined: installed packages of the interpreter itself can be read; files in scratch are limited in size, not in
  number; a candidate's descendants survive if both the judge and the zygote are killed. Without Landlock a candidate
  also reaches every readable file, every world-writable folder (as root, leftovers in /dev/shm are removed; else they
  stay) and /dev/zero, whose shared mappings are uncounted memory. Before Linux 6.12, or without Landlock, it can signal
  other processes of the same uid (ours, if we are not root), and without Landlock trace them through /proc, so that a
  verdict can be forged. If we are not root the process limit counts all of the user's processes, so that threads and
  forks mostly fail. As root without CAP_SYS_PTRACE, shared pages count once per process.
- Other systems: nothing runs except on Linux 5.12 or later on x86_64 or aarch64.
"""

from .pool import (
    CONFINEMENTS,
    OUTCOMES,
    ExecutionRefused,
    Job,
    Limits,
    Outcome,
    Permissions,
    require_permission,
    run_jobs,
)

__all__ = [
    "CONFINEMENTS", "OUTCOMES", "ExecutionRefused", "Job", "Limits", "Outcome", "Permissions", "require_permission",
    "run_jobs",
]  # fmt: skip
