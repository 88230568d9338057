"""Wall time of a reference: overlapping sittings count once, gaps do not count, and old records are supported."""

from pathlib import Path

import pytest

from reproduction.records import Run, read_json, write_json
from reproduction.report.page.provenance import write_provenance
from reproduction.report.walltime import sentence, spent, union


@pytest.mark.parametrize(
    ("intervals", "length"),
    [([], 0), ([(0, 5), (7, 9)], 7), ([(0, 9), (2, 4), (5, 6)], 9), ([(6, 8), (0, 2), (2, 3), (7, 12), (1, 2)], 9)],
)
def test_the_union_counts_a_gap_never_and_what_overlaps_once(intervals: list, length: float) -> None:
    assert union(intervals) == length


def at(seconds: int) -> str:
    return f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}+00:00"


def make_run(folder: Path, *, device: str | None, seconds: dict | None, started: int = 0, cores: int = 8) -> Run:
    """Write a finished run with these records."""
    run = Run(folder)
    parts = {"model": {}, "method": {"kind": "peft"}, "data": {}, "train": {}, "seed": 0}
    run.start({"experiment": "sums", "scale": "small", **parts})
    run.finish({} if device is None else {"device": device})
    write_json(folder / "status.json", run.status | {"started": at(started)})
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
    assert (found["device"], found["runs"], found["timed"]) == ("gpu", 3, 3)
    assert (found["work_seconds"], found["wall_seconds"]) == (180, 90 + 50)
    runs.append(make_run(tmp_path / "c", device="other", seconds={"seconds": 5}, started=10))
    both = [(each["device"], each["runs"], each["wall_seconds"]) for each in spent(runs)]
    assert both == [("an unknown device", 1, 30), ("gpu", 2, 120), ("other", 1, 5)]


def test_seconds_of_before_sittings_were_kept_are_one_sitting_from_the_runs_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", device="gpu", seconds={"seconds": 100, "sittings": [[at(200), 40]]}, started=100)
    assert [(each["work_seconds"], each["wall_seconds"]) for each in spent([run])] == [(100, 100)]
    overlapping = make_run(tmp_path / "b", device="gpu", seconds={"seconds": 50}, started=220)
    assert spent([run, overlapping])[0]["wall_seconds"] == 60 + 70


def test_a_reference_says_what_it_took_where_every_run_does_and_else_how_many_do(tmp_path: Path) -> None:
    runs, path = tmp_path / "runs", tmp_path / "provenance.json"

    def time() -> list[dict]:
        write_provenance(runs, path, scale="small")
        return read_json(path).get("time", [])

    make_run(runs / "a", device="gpu", seconds=None)
    assert (time(), sentence(time())) == ([], "")
    make_run(runs / "b", device="gpu", seconds={"seconds": 90})
    assert sentence(time()).startswith("1 of the 2 runs say")
    write_json(runs / "a" / "seconds.json", {"seconds": 60})
    text = sentence(time())
    assert text.startswith("2 runs on gpu (8 CPU cores) took 1.5 minutes of wall time, in which 1.7 cells")
    assert "(2.5 minutes of work)" in text
