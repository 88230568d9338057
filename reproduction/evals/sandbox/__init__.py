"""Runs model-written code and decides whether it passed, so that the code can neither do harm nor forge the verdict.

    pool (our process) ── jobs, outcomes ──> judge ── a socket per program ──> candidate, forked by the zygote
                                             trusted: test                     not trusted: prompt + completion

The test runs in the judge and calls the candidate through a proxy; only plain values cross (`wire`), by value in both
directions. An object whose __eq__ lies arrives as the plain value that it holds or not at all, there is no frame of the
test to look into, and the test's text is never in the candidate's memory. An early exit, a value that does not cross
and a missing answer are failures. Whatever a candidate writes to the socket can only be a return value.

The candidate's process has, each from the kernel: its own process namespace (all that it starts dies with it), a
network namespace without even a loopback, IPC and host-name namespaces, a read-only root that shows the standard
library, the system's libraries and two devices (no /proc, home, shared memory or installed packages, so no benchmark to
look answers up in), 16 MiB of scratch that vanish with it, no capability and no way to one, a session keyring of its
own, a filter of system calls (`kernel`), another uid where we are root, limits on address space, CPU time, processes,
file size and open files, an empty environment, no inherited descriptor but its socket, and a wall-clock limit that is
enforced from outside. Memory that process limits do not count is unavailable: shared memory, memfds and mappings shared
without a file are refused, huge pages are off. The zygote measures the memory of a candidate and its descendants every
10 ms and ends them above the limit; the outcome is "memory".

Where the system refuses any of this nothing is run, unless `allow_network_unconfined` is given too. Then what needs no
namespace is left: the filter, which lets no socket be made but connected pairs, the keyring, the limits, another uid
(as root), the end of all that was started, and, where the kernel has Landlock, no files but the libraries and the
scratch folder. Only a refusal that the zygote reports counts: a sandbox that fails to start for another reason is tried
once more and then an error. A program that imports from the standard library is run first, and where that fails nothing
is run. Every outcome says how its program was confined.

Nothing outlives its parent: the kernel tells judge, test, zygote and candidate when theirs ends; what a candidate
started ends with its process namespace, or by the zygote, or by the judge where the zygote was killed. A scratch folder
that a kill left behind is removed at the next start.

Candidates and tests can import the standard library alone. Hash seed and random seed are fixed. Threads, asyncio,
os.fork, socket pairs, sqlite3 and files in the working folder work. mmap.mmap(-1, n), which Python makes shared memory
unless it is told MAP_PRIVATE, does not; nor do locks, queues and pools of multiprocessing, nor subprocess, since there
is no program to start.

What the sandbox does not cover:
- Holes of the kernel in the calls that are left. Against code written to attack, use a virtual machine.
- The machine as a whole: a candidate may hold its limit of memory and, for the 10 ms between two measurements,
  `processes` times as much at most, in each of as many sandboxes as we may use CPUs. The kernel's buffers of its pipes
  and socket pairs (64 descriptors per process) come on top. CPU time is shared fairly, not reserved; the page cache
  and side channels between processes stay.
- System libraries and the standard library can be read.
- Where we are not root, a candidate has our own uid inside its namespaces, and our supplementary groups.
- The judge trusts the benchmark: prompts and tests run in it with our rights. A test that catches every Exception, or
  passes on wrong values, passes here too.
- A candidate that knows the expected answers by heart passes.
- Unconfined: installed packages of the interpreter itself can be read; files in scratch are limited in size and not in
  number; what a candidate started goes on if both the judge and the zygote are killed. Without Landlock also every
  readable file, every world-writable folder (as root, what is left in /dev/shm is removed; else it stays) and
  /dev/zero, whose shared mappings are memory that is not counted; before Linux 6.12, or without Landlock, other
  processes of the same uid can be signalled (ours, where we are not root), and without Landlock traced through /proc,
  so that a verdict can be forged. Where we are not root the process limit counts all of the user's processes, so that
  threads and forks mostly fail. What shares pages counts for each process that has them if we are root without
  CAP_SYS_PTRACE.
- Linux 5.12 or later on x86_64 or aarch64; elsewhere nothing is run.
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
