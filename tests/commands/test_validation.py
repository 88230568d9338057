"""Untuned bases against published scores: every row can be asked for, and the embedded bases meet their reference."""

import csv
from pathlib import Path

import forks
import pytest

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.commands import validation
from reproduction.commands.validation import (
    MISSING,
    OUTSIDE,
    PUBLISHED,
    WITHIN,
    Checked,
    Published,
    base_cells,
    check,
    chosen,
    published_at,
    summary,
)
from reproduction.report.collect import write_csv
from reproduction.report.reference import reference_folder


def row(**changes) -> Published:
    settings = {"model": "pebble", "benchmark": "gsm8k", "protocol": "0shot", "metric": "strict", "published": 10.0}
    return Published(**(settings | {"tolerance": 2.0, "source": "a paper"} | changes))


def test_every_published_row_is_a_protocol_that_some_base_of_the_scale_is_evaluated_under(tmp_path: Path) -> None:
    rows = published_at("paper", tolerance=0)
    cells = base_cells(rows, scale="paper", overrides=[f"results_dir={tmp_path}"])
    asked = {(cell.model.name, p.benchmark, p.name) for cell in cells for p in cell.protocols}
    assert asked == {(each.model, each.benchmark, each.protocol) for each in rows}
    assert {each.verdict for each in check(rows, cells)} == {MISSING}


def test_published_rows_say_where_they_are_from_and_how_near_is_near() -> None:
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {each["scale"] for each in rows} == {"paper"}
    for each in rows:
        assert all(each.values()), each
        assert 0 < float(each["tolerance"]) < 10 < float(each["published"]) < 100


def test_a_scale_without_published_scores_has_its_committed_reference() -> None:
    rows = published_at("tiny", tolerance=1.5)
    assert {each.model for each in rows} == {"pebble", "cobble", "gravel"}
    assert {(each.tolerance, each.source) for each in rows} == {(1.5, "results/reference/tiny/metrics.csv")}
    assert {each.model for each in chosen(rows, models=["gravel"], benchmarks=None)} == {"gravel"}
    with pytest.raises(
        ConfigError, match=r"benchmarks=\w+ has no published score here; there are commonsenseqa, gsm8k"
    ):
        chosen(rows, models=None, benchmarks=["arithmetic"])
    with pytest.raises(ConfigError, match=r"nothing is published of the bases at scale=huge: .* is not there"):
        published_at("huge", tolerance=1)


def test_a_reference_of_losses_alone_has_no_scores_to_be_held_against(tmp_path: Path, monkeypatch) -> None:
    assert "heldout" not in {each.benchmark for each in published_at("tiny", tolerance=1.5)}
    committed = reference_folder(validation.REPOSITORY / "results", "small") / "metrics.csv"
    with committed.open(newline="") as file:
        losses = [row for row in csv.DictReader(file) if row["benchmark"] in ("", "heldout")]
    assert any(row["method"] == "base" and row["benchmark"] for row in losses)
    own = reference_folder(tmp_path / "results", "small") / "metrics.csv"
    own.parent.mkdir(parents=True)
    write_csv(own, list(losses[0]), losses)
    monkeypatch.setattr(validation, "REPOSITORY", tmp_path)
    with pytest.raises(
        ConfigError, match=r"nothing is published of the bases at scale=small: .* has no scores of them"
    ):
        published_at("small", tolerance=3)


def test_a_row_that_nothing_evaluates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment at scale=tiny evaluates granite on gsm8k \(0shot\)"):
        base_cells([row(model="granite")], scale="tiny", overrides=[f"results_dir={tmp_path}"])


def test_a_score_is_within_its_tolerance_outside_or_missing() -> None:
    verdicts = [
        Checked(published=row(), score=score, low=0, high=20, items=9).verdict for score in (12.0, 8.0, 12.1, 7.9)
    ]
    assert verdicts == [WITHIN, WITHIN, OUTSIDE, OUTSIDE]
    missing = Checked(published=row())
    assert missing.verdict == MISSING
    assert summary([Checked(published=row(), score=9.0)], {}) is None
    said = summary([Checked(published=row(), score=19.0), missing], {"pebble/base": "OutOfMemory"})
    assert "failed: pebble/base: OutOfMemory" in said
    assert "1 of 2 scores are outside" in said
    assert "1 of 2 scores are missing" in said


def test_the_command_evaluates_a_base_and_finds_it_at_its_reference(repository: Path, tmp_path: Path) -> None:
    asked = ["scale=tiny", f"results_dir={tmp_path}", "models=[pebble]", "benchmarks=[commonsenseqa]", "workers=1"]
    done = forks.start(repository / "scripts" / "validate.py", asked, folder=tmp_path / "run").end(300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "within" in done.stdout
    (written,) = csv.DictReader((tmp_path / "tiny" / "validation.csv").open(newline=""))
    assert (written["model"], written["benchmark"], written["verdict"]) == ("pebble", "commonsenseqa", "within")
    assert abs(float(written["difference"])) <= 3
    # The table's own base row is this run: what was evaluated here is not evaluated again.
    base = compose_cell("multitask_llama3", "base", scale="tiny", seed=0, overrides=[f"results_dir={tmp_path}"])
    assert "commonsenseqa" not in [protocol.benchmark for protocol in base.eval_job.waiting]
    rows = [row(benchmark="commonsenseqa", protocol="likelihood_0shot", metric="acc", published=99.0)]
    (far,) = check(rows, base_cells(rows, scale="tiny", overrides=[f"results_dir={tmp_path}"]))
    assert far.verdict == OUTSIDE
    assert far.low < far.score < far.high
