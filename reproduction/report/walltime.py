"""Work and wall time of runs that took several sittings, with several cells in parallel."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from reproduction.records import Run

Sitting = tuple[float, float]
"""Begin and end of uninterrupted work on a run, in seconds since the epoch."""

UNKNOWN = "an unknown device"


def spent(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return the times by device and cores for provenance.json: {"device", "cores", "runs", "timed", "work_seconds",
    "wall_seconds"}; empty if no run has times. Raises `RecordError` if a record cannot be read.

    ``timed`` counts the runs with times. ``wall_seconds`` is the length of the union of their sittings: gaps do not
    count, parallel cells count once. An untuned base names no device, and counts for the device of the other runs with
    as many cores, if there is only one.
    """
    by_machine: dict[tuple[str, int | None], list[list[Sitting]]] = {}
    for run in runs:
        machine = run.resources.get("device") or UNKNOWN, run.provenance.get("cpus")
        by_machine.setdefault(machine, []).append(sittings(run))
    for nameless in [machine for machine in by_machine if machine[0] == UNKNOWN]:
        named = [machine for machine in by_machine if machine[1] == nameless[1] and machine != nameless]
        if len(named) == 1:
            by_machine[named[0]] += by_machine.pop(nameless)
    found = []
    for (device, cores), own in sorted(by_machine.items(), key=str):
        every = [sitting for of_run in own for sitting in of_run]
        work, wall = round(sum(end - begin for begin, end in every), 1), round(union(every), 1)
        counts = {"runs": len(own), "timed": sum(map(bool, own))}
        found.append({"device": device, "cores": cores, **counts, "work_seconds": work, "wall_seconds": wall})
    return found if any(each["timed"] for each in found) else []


def sittings(run: Run) -> list[Sitting]:
    """Return the times of training and evaluating a run; empty if it has none.

    Seconds without sittings, in older runs, count as one sitting from the start in status.json.
    """
    found = [(datetime.fromisoformat(began).timestamp(), length) for began, length in run.seconds.get("sittings", [])]
    before = run.seconds.get("seconds", 0.0) - sum(length for _, length in found)
    if before > 0.05 and run.status.get("started"):  # the sum is rounded to tenths
        found.append((datetime.fromisoformat(run.status["started"]).timestamp(), before))
    return [(began, began + length) for began, length in found if length > 0]


def union(intervals: Iterable[Sitting]) -> float:
    """Return the length of the union of intervals."""
    covered, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


def sentence(found: Sequence[dict[str, Any]]) -> str:
    """Describe the result of `spent`, with the number of runs that have times if some have none; "" without any."""
    runs, timed = (sum(each[name] for each in found) for name in ("runs", "timed"))
    if not timed:
        return ""
    if timed < runs:
        return f"{timed} of the {runs} runs say when they were at work, so that their wall time is not known."
    parts = []
    for each in found:
        cores = f" ({each['cores']} CPU cores)" if each["cores"] else ""
        work, wall = each["work_seconds"], each["wall_seconds"]
        parts.append(
            f"{each['runs']} runs on {each['device']}{cores} took {wall / 60:,.1f} minutes of wall time, in which "
            f"{work / wall:.1f} cells were at work side by side on average ({work / 60:,.1f} minutes of work)"
        )
    return (
        f"{'; '.join(parts)}. Gaps between sittings are left out, and so are the trials that chose the learning rates; "
        "a run that kept its seconds alone counts as one sitting from its start."
    )
