"""Provenance of a scale's numbers: a summary of its runs in one small file kept with the results."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduction.records import RecordError, Run, read_json, write_json
from reproduction.report.collect import readable_runs
from reproduction.report.figures import Absent, Sources
from reproduction.report.walltime import spent

MACHINE = ("python", "platform", "cpu", "cpus", "omp_num_threads")


def gather_provenance(sources: Sources) -> dict[str, Any]:
    """Return the scale's summary of finished runs, written to provenance.json; without runs, the saved summary.

    {"runs": n, "first": date, "last": date, "values": {field: {value: runs}}}; a field is a commit, a version or the
    machine. "time" is `reproduction.report.walltime`'s, if runs recorded their times. Raises `Absent` if there is
    neither a run nor a file, `RecordError` if one cannot be read.
    """
    summary = sources.own / "provenance.json"
    write_provenance(sources.own / "runs", summary, scale=sources.scale)
    if not summary.is_file():
        raise Absent(sources.name(summary), sources.make("tables"))
    return read_json(summary)


def write_provenance(runs: Path, out: Path, *, scale: str) -> None:
    """Write the summary of the readable runs in a folder; writes nothing if there is none."""
    if found := [run for run in readable_runs(runs, scale=scale)[0] if _is_whole(run)]:
        write_json(out, _summary(found))


def _is_whole(run: Run) -> bool:
    try:
        return run.done and bool(run.provenance and run.resources and run.seconds is not None)
    except RecordError:  # the tables report the error
        return False


def _summary(runs: Sequence[Run]) -> dict[str, Any]:
    found = [run.provenance for run in runs]
    dates = sorted(each["date"] for each in found)
    devices = [run.resources.get("device") for run in runs]
    fields = {
        "git commit": [_commit(each) for each in found],
        "trained on": [device for device in devices if device],
        **{field: [each.get(field) for each in found] for field in MACHINE},
    }
    for name in sorted({name for each in found for name in each.get("packages", {})}):
        fields[name] = [each.get("packages", {}).get(name) for each in found]
    counted = {
        field: Counter("unknown" if value is None else str(value) for value in values)
        for field, values in fields.items()
    }
    time = spent(runs)
    return {
        "runs": len(found),
        "first": dates[0],
        "last": dates[-1],
        "values": {field: dict(sorted(counts.items())) for field, counts in counted.items()},
        **({"time": time} if time else {}),
    }


def _commit(provenance: dict[str, Any]) -> str | None:
    git = provenance.get("git") or {}
    commit = git.get("commit")
    return commit and commit[:12] + (" with local changes" if git.get("dirty") else "")
