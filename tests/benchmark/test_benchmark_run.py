"""Order of a benchmark, failures, interrupts, a busy machine, and the rows that a file accepts."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import adapter, scenario

from reproduction.benchmark import idle_check
from reproduction.benchmark.idle_check import Busy, Reading
from reproduction.benchmark.record import COLUMNS, ENVIRONMENT, Records
from reproduction.benchmark.run import compared, outcome, run_benchmark
from reproduction.benchmark.spec import Limits
from reproduction.records import RecordError

HERE = dict.fromkeys((*ENVIRONMENT, "commit"), "x")
STRICT = Limits(utilisation=5, load=1, drift=0.03, spread=0.05)


def run(plan, folder: Path, log=lambda line: None) -> list[str]:
    return run_benchmark(plan, folder, command="python it", log=log)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "benchmark.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_variant_that_fails_is_a_row_with_its_reason_and_the_others_go_on(plan, tmp_path) -> None:
    problems = run(plan(adapter("wrong", r=0), adapter("right")), tmp_path)
    found = {row["variant"]: row for row in rows_of(tmp_path)}
    assert found["wrong"]["status"] == "failed"
    assert "ValueError" in found["wrong"]["reason"]
    assert found["wrong"]["median_ms"] == ""
    assert found["right"]["status"] == found["base"]["status"] == "done"
    assert len(problems) == 1
    assert problems[0].startswith("prefill, wrong: failed (ValueError")


def test_too_little_memory_is_told_from_every_other_failure() -> None:
    def fails(error: Exception):
        def function():
            raise error

        return outcome(function)["status"]

    assert fails(torch.OutOfMemoryError("CUDA out of memory. Tried …")) == "oom"
    assert fails(RuntimeError("CUDA error: out of memory")) == "oom"
    assert fails(MemoryError()) == "oom"
    assert fails(RuntimeError("shapes differ")) == "failed"
    with pytest.raises(KeyboardInterrupt):
        fails(KeyboardInterrupt())


def test_an_interrupt_keeps_the_finished_rows_and_the_next_run_measures_each_once(plan, tmp_path) -> None:
    lines = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    asked = plan(adapter("one"), adapter("two"))
    with pytest.raises(KeyboardInterrupt):
        run(asked, tmp_path, log=interrupt)
    assert [row["variant"] for row in rows_of(tmp_path)] == ["base", "one"]
    run(asked, tmp_path)
    assert [row["variant"] for row in rows_of(tmp_path)] == ["base", "one", "two"]
    run(plan(scenarios=(scenario(batch=3),)), tmp_path)
    assert [row["batch"] for row in rows_of(tmp_path)] == ["2", "2", "2", "3"]


def test_numbers_of_two_environments_or_versions_do_not_go_into_one_file(tmp_path) -> None:
    Records(tmp_path, HERE).append(dict.fromkeys(COLUMNS, "1"))
    Records(tmp_path, HERE | {"commit": "another"})
    for column in ("device", "torch", "model"):
        with pytest.raises(RecordError, match=f"{column}=x, this is y"):
            Records(tmp_path, HERE | {column: "y"})
    (tmp_path / "benchmark.csv").write_text("scenario,seconds\na,1\n")
    with pytest.raises(RecordError, match="other columns"):
        Records(tmp_path, HERE)


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (Reading(utilisation=4), None),
        (Reading(utilisation=None), None),
        (Reading(utilisation=60), "60 %"),
        (Reading(utilisation=0, others=2), "2 other processes"),
        (Reading(utilisation=0, load=2.5, cpus=2), "2.5 on 2 CPUs (at most 2)"),
        (Reading(utilisation=0, load=1.5, cpus=2), None),
    ],
)
def test_a_machine_is_busy_by_its_figures(reading: Reading, words: str | None) -> None:
    found = idle_check.why_busy(reading, STRICT)
    assert found is None if words is None else words in found


def test_quartiles_and_drift_beyond_the_limits_are_told_with_their_figures() -> None:
    assert idle_check.why_disturbed(0.04, STRICT) is idle_check.why_drifted(0.02, STRICT) is None
    assert "6.0 % of the median" in idle_check.why_disturbed(0.06, STRICT)
    assert "-4.0 % (at most 3 %)" in idle_check.why_drifted(-0.04, STRICT)


def test_on_a_busy_machine_nothing_is_measured_unless_allowed(plan, tmp_path) -> None:
    limits = Limits(utilisation=0.05, load=1000, drift=1000, spread=1000)
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with pytest.raises(Busy, match=r"the machine was busy: .* allow_busy=true"):
            run(plan(limits=limits), tmp_path)
        assert rows_of(tmp_path) == []
        assert run(plan(limits=limits, allow_busy=True), tmp_path) == []
    finally:
        other.kill()
        other.wait()
    assert [(row["status"], row["busy"]) for row in rows_of(tmp_path)] == [("done", "true")]


@pytest.mark.parametrize("limit", ["drift", "spread"])
def test_what_was_disturbed_is_written_and_not_reported(limit: str, plan, tmp_path) -> None:
    limits = Limits(**{"utilisation": 1000, "load": 1000, "drift": 1000, "spread": 1000} | {limit: 1e-12})
    problems = run(plan(adapter(), limits=limits), tmp_path)
    rows = rows_of(tmp_path)
    assert {(row["status"], row["busy"]) for row in rows} == {("busy", "true")}
    assert all(float(row["median_ms"]) > 0 for row in rows)
    assert len(problems) == 2
    assert {"drift": "drifted", "spread": "quartiles"}[limit] in problems[0]


def test_a_result_is_set_beside_the_reference_where_both_have_a_number() -> None:
    base = {"median_ms": 10.0, "peak_mib": 100.0, "peak_above_weights_mib": 40.0}
    own = {"median_ms": 12.0, "peak_mib": 130.0, "peak_above_weights_mib": 50.0}
    assert compared(own, base) == {"ratio": 1.2, "memory_ratio": 1.25, "extra_mib": 30.0}
    assert compared({"status": "oom"}, base) == compared(own, {"status": "oom"}) == {}
