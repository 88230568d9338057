"""What a reference took: sittings that overlap count once, gaps not at all, and old records say what they can."""

import json
from pathlib import Path

import pytest

from reproduction.records import Run, write_json
from reproduction.report.figures import Sources
from reproduction.report.page.exact import provenance_section
from reproduction.report.walltime import sentence, spent, told, union


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 5), (7, 9)], 7),
        ([(0, 5), (3, 9)], 9),
        ([(0, 9), (2, 4), (5, 6)], 9),
        ([(6, 8), (0, 2), (2, 3), (7, 12), (1, 2)], 9),
    ],
)
def test_the_union_counts_a_gap_never_and_what_overlaps_once(intervals, length: float) -> None:
    assert union(intervals) == length


def at(seconds: int) -> str:
    return f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}+00:00"


def make_run(folder: Path, *, device: str | None, seconds: dict | None, started: int = 0, cores: int = 8) -> Run:
    """A finished run as its folder says it."""
    run = Run(folder)
    parts = {"model": {}, "method": {"kind": "peft"}, "data": {}, "train": {}, "seed": 0}
    run.start({"experiment": "sums", "scale": "small", **parts})
    run.finish({} if device is None else {"device": device})
    status = run.status | {"started": at(started)}
    write_json(folder / "status.json", status)
    write_json(folder / "provenance.json", run.provenance | {"cpus": cores})
    if seconds:
        write_json(folder / "seconds.json", seconds)
    return run


def test_work_and_wall_time_are_told_by_machine_and_an_untuned_base_counts_for_the_one_that_there_is(
    tmp_path: Path,
) -> None:
    runs = [
        make_run(tmp_path / "a", device="gpu", seconds={"seconds": 90, "sittings": [[at(0), 60], [at(600), 30]]}),
        make_run(tmp_path / "b", device="gpu", seconds={"seconds": 60, "sittings": [[at(30), 60]]}),
        make_run(tmp_path / "base", device=None, seconds={"seconds": 30}, started=620),
    ]
    (found,) = spent(runs)
    assert (found.device, found.runs, found.timed) == ("gpu", 3, 3)
    assert (found.work_seconds, found.wall_seconds) == (180, 90 + 50)
    assert found.side_by_side == pytest.approx(180 / 140)
    both = spent([*runs, make_run(tmp_path / "c", device="other", seconds={"seconds": 5}, started=10)])
    assert [(each.device, each.runs, each.wall_seconds) for each in both] == [
        ("an unknown device", 1, 30),
        ("gpu", 2, 120),
        ("other", 1, 5),
    ]
    runs += [make_run(tmp_path / "d", device="gpu", seconds={"seconds": 7}, cores=16)]
    assert [(each.device, each.cores, each.runs) for each in spent(runs)] == [("gpu", 16, 1), ("gpu", 8, 3)]


def test_seconds_of_before_sittings_were_kept_are_one_sitting_from_the_runs_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", device="gpu", seconds={"seconds": 100, "sittings": [[at(200), 40]]}, started=100)
    (found,) = spent([run])
    assert (found.work_seconds, found.wall_seconds) == (100, 100)
    overlapping = make_run(tmp_path / "b", device="gpu", seconds={"seconds": 50}, started=220)
    assert spent([run, overlapping])[0].wall_seconds == 60 + 70


def test_a_reference_says_what_it_took_where_every_run_does_and_else_how_many_do(tmp_path: Path) -> None:
    sources = Sources(tmp_path / "results", tmp_path, "small")
    runs = sources.own / "runs"

    def said() -> tuple[str, dict]:
        first = provenance_section(sources).blocks[0]
        return str(getattr(first, "html", "")), json.loads((sources.own / "provenance.json").read_text())

    make_run(runs / "a", device="gpu", seconds=None)
    words, kept = said()
    assert (words, "time" in kept) == ("", False)
    make_run(runs / "b", device="gpu", seconds={"seconds": 90}, started=0)
    assert "1 of the 2 runs say when they were at work" in said()[0]
    write_json(runs / "a" / "seconds.json", {"seconds": 60})
    words, kept = said()
    assert (
        "2 runs on gpu (8 CPU cores) took 1.5 minutes of wall time, in which 1.7 cells were at work side by side on"
        in words
    )
    assert "(2.5 minutes of work). Gaps between sittings are left out" in words
    assert kept["time"] == told(spent([Run(runs / name) for name in "ab"]))
    assert sentence(kept["time"]) in words
