"""Untuned bases against published scores: every row can be asked for, and the embedded bases meet their reference."""

import csv

import pytest

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cli import NotComplete
from reproduction.commands.validation import (
    MISSING,
    OUTSIDE,
    PUBLISHED,
    WITHIN,
    Checked,
    base_cells,
    check,
    chosen,
    published_at,
    require_within,
)
from reproduction.report.documents import read_csv


def row(**changes) -> Checked:
    settings = {"model": "pebble", "benchmark": "gsm8k", "protocol": "0shot", "metric": "strict", "published": 10.0}
    return Checked(**(settings | {"tolerance": 2.0, "source": "a paper"} | changes))


def test_every_published_row_is_a_protocol_that_some_base_of_the_scale_is_evaluated_under(tmp_path):
    for each in read_csv(PUBLISHED):
        assert all(each.values()), each
        assert 0 < float(each["tolerance"]) < 10 < float(each["published"]) < 100
    rows = published_at("paper", tolerance=0)
    cells = base_cells(rows, scale="paper", overrides=[f"results_dir={tmp_path}"])
    asked = {(cell.model.name, p.benchmark, p.name) for cell in cells for p in cell.protocols}
    assert asked == {each.asked for each in rows}
    assert {each.verdict for each in check(rows, cells)} == {MISSING}


def test_a_scale_without_published_scores_has_those_of_its_committed_reference():
    rows = published_at("tiny", tolerance=1.5)
    assert {each.model for each in rows} == {"pebble", "cobble", "gravel"}
    assert {(each.tolerance, each.source) for each in rows} == {(1.5, "results/reference/tiny/metrics.csv")}
    assert "heldout" not in {each.benchmark for each in rows}, "a loss has no points"
    assert {each.model for each in chosen(rows, models=["gravel"], benchmarks=None)} == {"gravel"}
    with pytest.raises(ConfigError, match=r"benchmarks=arithmetic .* choose commonsenseqa, gsm8k"):
        chosen(rows, models=None, benchmarks=["arithmetic"])
    with pytest.raises(ConfigError, match="scale=huge"):
        published_at("huge", tolerance=1)


def test_a_row_that_nothing_evaluates_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="granite on gsm8k"):
        base_cells([row(model="granite")], scale="tiny", overrides=[f"results_dir={tmp_path}"])


def test_a_score_is_within_its_tolerance_outside_or_missing():
    assert [row(score=score).verdict for score in (12.0, 8.0, 12.1, 7.9)] == [WITHIN, WITHIN, OUTSIDE, OUTSIDE]
    assert row().verdict == MISSING
    require_within([row(score=9.0)], {})
    for wrong, failed, words in (
        ([row(score=19.0), row()], {}, r"1 of 2 scores are outside.*\n1 of 2 scores are missing"),
        ([row(score=9.0)], {"pebble/base": "OutOfMemory"}, "failed: pebble/base: OutOfMemory"),
    ):
        with pytest.raises(NotComplete, match=words):
            require_within(wrong, failed)


def test_the_command_evaluates_a_base_and_finds_it_at_its_reference(tmp_path, script, jobs_here):
    asked = ["scale=tiny", f"results_dir={tmp_path}", "models=[pebble]", "benchmarks=[commonsenseqa]", "workers=1"]
    done = script("validate", *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "within" in done.stdout
    (written,) = csv.DictReader((tmp_path / "tiny" / "validation.csv").open(newline=""))
    assert (written["model"], written["benchmark"], written["verdict"]) == ("pebble", "commonsenseqa", "within")
    assert abs(float(written["difference"])) <= 3
    # The table's base row is this run, so it is not evaluated again.
    base = compose_cell("multitask_llama3", "base", scale="tiny", seed=0, overrides=[f"results_dir={tmp_path}"])
    assert "commonsenseqa" not in [protocol.benchmark for protocol in base.eval_job.waiting]
    rows = [row(benchmark="commonsenseqa", protocol="likelihood_0shot", metric="acc", published=99.0)]
    (far,) = check(rows, base_cells(rows, scale="tiny", overrides=[f"results_dir={tmp_path}"]))
    assert far.verdict == OUTSIDE
    assert far.ci_low < far.score < far.ci_high
