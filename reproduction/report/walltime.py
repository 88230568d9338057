"""How long runs took that were filled in several sittings, several cells side by side: work, and wall time."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from reproduction.records import Run

Sitting = tuple[float, float]
"""Begin and end, in seconds of the clock."""

UNKNOWN = "an unknown device"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """``runs`` on one kind of device in machines of so many ``cores``, of which ``timed`` say when they were at work;
    their ``work_seconds`` all together, and ``wall_seconds``, the length of the union of their sittings: gaps do not
    count, cells side by side count once.
    """

    device: str
    cores: int | None
    runs: int
    timed: int
    work_seconds: float
    wall_seconds: float

    @property
    def side_by_side(self) -> float:
        """Cells at work at once, on average over the wall time."""
        return self.work_seconds / self.wall_seconds


def spent(runs: Iterable[Run]) -> list[Spent]:
    """By device and cores; none where no run says when it was at work. Raises `RecordError` where a record cannot be
    read.

    An untuned base names no device, and counts for the one that others with so many cores name, if it is one.
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
        found.append(
            Spent(
                device=device,
                cores=cores,
                runs=len(own),
                timed=sum(map(bool, own)),
                work_seconds=round(sum(end - begin for begin, end in every), 1),
                wall_seconds=round(union(every), 1),
            )
        )
    return found if any(each.timed for each in found) else []


def sittings(run: Run) -> list[Sitting]:
    """When training and evaluating a run were at work; nothing where it does not say.

    Seconds without their sittings, as older runs have them, count as one sitting from the start in status.json.
    """
    kept = [(datetime.fromisoformat(began).timestamp(), length) for began, length in run.seconds.get("sittings", [])]
    before = run.seconds.get("seconds", 0.0) - sum(length for _, length in kept)
    if before > 0.05 and run.status.get("started"):  # the sum is rounded to tenths
        kept.append((datetime.fromisoformat(run.status["started"]).timestamp(), before))
    return [(began, began + length) for began, length in kept if length > 0]


def union(intervals: Iterable[Sitting]) -> float:
    """The length of what at least one interval covers."""
    covered, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


def told(found: Sequence[Spent]) -> list[dict[str, Any]]:
    """As a file keeps it."""
    return [asdict(each) for each in found]


def sentence(kept: Sequence[dict[str, Any]]) -> str:
    """What a file keeps, in words; where some runs do not say when they were at work, how many do; else nothing."""
    found = [Spent(**each) for each in kept]
    runs, timed = sum(each.runs for each in found), sum(each.timed for each in found)
    if not timed:
        return ""
    if timed < runs:
        return f"{timed} of the {runs} runs say when they were at work, so that their wall time is not known."
    parts = [
        f"{each.runs} runs on {each.device}{_cores(each)} took {_minutes(each.wall_seconds)} minutes of wall time, in "
        f"which {each.side_by_side:.1f} cells were at work side by side on average "
        f"({_minutes(each.work_seconds)} minutes of work)"
        for each in found
    ]
    return (
        f"{'; '.join(parts)}. Gaps between sittings are left out, and so are the trials that chose the learning rates; "
        "a run that kept its seconds alone counts as one sitting from its start."
    )


def _cores(each: Spent) -> str:
    return f" ({each.cores} CPU cores)" if each.cores else ""


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.1f}"
