"""Runs model-written code and decides whether it passed, so that the code can neither do harm nor forge the verdict.

    pool (our process) ── jobs, outcomes ──> judge ── a socket per program ──> candidate, forked by the zygote
                                             trusted: test                     not trusted: prompt + completion

The test runs in the judge and calls the candidate through a proxy; only plain values cross (`wire`), by value in both
directions. So an object whose __eq__ lies arrives as the plain value that it holds or not at all, there is no frame
of the test to look into, the test's text is never in the candidate's memory, and an early exit, a value that does not
cross and a missing answer are failures. Whatever a candidate writes to the socket can only be a return value.

The candidate's process has, each from the kernel: its own process namespace (all that it starts dies with it), a
network namespace with nothing in it, not even a loopback, IPC and host-name namespaces, a read-only root that shows
the interpreter's standard library, the system's libraries and three devices (no /proc, no home, no installed
packages, so no benchmark to look answers up in), 16 MiB of scratch that vanish with it, no capability and no way to
one (no_new_privs, no user namespaces), another uid where we are root, limits on memory, CPU time, processes, file
size and open files, an environment without anything of ours, no inherited descriptor but its socket, and a wall-clock
limit that is enforced from outside. Where the system refuses any of this nothing is run, unless
`allow_network_unconfined` is given too: then limits, another uid (as root) and the end of all that was started are
what is left. Only a refusal that the zygote reports counts: a sandbox that fails to start for another reason (a machine
under load) is tried once more and then an error. Every outcome says how its program was confined.

Only the standard library can be imported, by candidates and tests alike. Hash seed and random seed are fixed.

What the sandbox does not cover:
- Holes of the kernel: a candidate makes system calls unfiltered. Against code written to attack, use a virtual
  machine.
- The machine as a whole: memory is limited per process and there may be `processes` of them in each of as many
  sandboxes as we may use CPUs; CPU time is shared fairly, not reserved; the page cache and side channels between
  processes stay.
- System libraries and the standard library can be read.
- Where we are not root, a candidate has our own uid inside its namespaces, and our supplementary groups.
- The judge trusts the benchmark: prompts and tests run in it with our rights. A test that catches every Exception, or
  passes on wrong values, passes here too.
- A candidate that knows the expected answers by heart passes.
- Unconfined (`allow_network_unconfined`): the network, every readable file, every world-writable folder, other
  processes of the same uid (ours, where we are not root: it can then signal and trace the judge, and so forge). The
  process limit then counts all of the user's processes.
- Linux 5.12 or later; elsewhere nothing is run.
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
    "CONFINEMENTS",
    "OUTCOMES",
    "ExecutionRefused",
    "Job",
    "Limits",
    "Outcome",
    "Permissions",
    "require_permission",
    "run_jobs",
]
