"""Small programs for the sandbox, and what is left of them."""

import textwrap
from pathlib import Path

from idlora.evals import sandbox
from idlora.evals.sandbox import Job, Limits, Outcome, Permissions, run_jobs

ALLOWED = Permissions(allow_code_execution=True)
QUICK = Limits(seconds=1.0)
PACKAGE = Path(sandbox.__file__).parent


def job(body: str, test: str = "assert candidate() == 42", *, prompt: str = "def f(*args):\n    pass\n") -> Job:
    check = "def check(candidate):\n" + textwrap.indent(textwrap.dedent(test), "    ")
    return Job(prompt=prompt, test=check, entry_point="f", program=textwrap.dedent(body))


def outcome(
    body: str, test: str = "assert candidate() == 42", *, limits: Limits = QUICK, prompt: str | None = None
) -> Outcome:
    extra = {} if prompt is None else {"prompt": prompt}
    return run_jobs([job(body, test, **extra)], permissions=ALLOWED, limits=limits)[0]


def returned(body: str, limits: Limits = QUICK) -> str:
    """What f() of the program returns, as its repr, through the text of a failed assertion."""
    found = outcome(body, "assert False, repr(candidate())", limits=limits)
    assert found.outcome == "failed", found
    return found.detail


def descendants(pid: int) -> set[int]:
    """The process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(head.split()[0])] = int(tail.split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
