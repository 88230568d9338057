"""Columns of held-out loss: mean over tokens with rows as items, lower is better, separate Holm family; sweeps."""

import csv
import dataclasses
from itertools import combinations

import numpy as np
import pytest

from reproduction.report import GridError, load_grid, markdown, summary, write_significance, write_sweep, write_table
from reproduction.report.grid import UNTUNED
from reproduction.report.intervals import RESAMPLES, around, bootstrap, interval, residuals
from reproduction.report.standings import pair_of

ROWS = 70
"""Rows of each source in the runs of `world`."""

TOKENS = np.random.default_rng(0).integers(2, 300, ROWS)
SHIFTS = {"base": 0.5, "lora": 0.0, "idlora": np.random.default_rng(1).normal(-0.05, 0.05, ROWS)}
"""Loss per token above 1 nat, for each row of gsm8k_test."""


@pytest.fixture(scope="session")
def table2(repository):
    grid = load_grid(repository / "experiments" / "table2")
    own = {"bases": {"llama3": grid.bases["llama3"]}, "experiments": ("multitask_llama3",)}
    return dataclasses.replace(grid, methods=("base", "lora", "idlora"), **own)


@pytest.fixture
def made(world, table2):
    """Make a world with known losses of one source."""
    made = world(grid=table2).fill()
    for experiment, method, _ in made.grid.cells():
        run = made.run(experiment, method)
        (run.eval_folder("heldout", "gsm8k_test") / "DONE").unlink()
        made.record_losses(run, "gsm8k_test", nats=(1.0 + SHIFTS[method]) * TOKENS, tokens=TOKENS)
    return made


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_value_is_all_nats_over_all_tokens_and_the_lower_loss_is_ahead_bold_and_marked(made, tmp_path):
    table = made.table()
    entries = {row.method: row.entries["loss_gsm8k_test"] for row in table.rows}
    expected = ((1 + SHIFTS["idlora"]) * TOKENS).sum() / TOKENS.sum()
    assert entries["idlora"].value == round(expected, 4) != round(1 + SHIFTS["idlora"].mean(), 4)
    assert {m for m, each in entries.items() if each.best} == {m for m, each in entries.items() if each.dagger}
    assert (entries["idlora"].best, entries["lora"].best) == (True, False)
    tests = {each.method: each for each in table.comparisons if each.column == "loss_gsm8k_test"}
    ours, base = tests["idlora"], tests["base"]
    assert ours.difference == pytest.approx(expected - 1)
    assert (ours.wins, ours.losses) == ((SHIFTS["idlora"] < 0).sum(), (SHIFTS["idlora"] > 0).sum())
    assert (base.wins, base.losses, base.dagger, base.wilcoxon_p < 0.001) == (0, ROWS, False, True)
    assert f"{ROWS} differ (0 lower, {ROWS} higher)" in summary(table.filled, [base])
    write_significance(table.filled, tmp_path / "tests.csv", table.comparisons)
    rows = {(row["method"], row["column"]): row for row in rows_of(tmp_path / "tests.csv")}
    row = rows["base", "loss_gsm8k_test"]
    assert (row["unit"], row["items"], row["measure"], row["difference"]) == ("row", str(ROWS), "nats a token", "0.5")
    assert row["mcnemar_p"] == ""
    assert row["family"] != rows["base", "gsm8k"]["family"]
    assert "+0.5000 [" in markdown(table)


def test_the_mean_of_the_sources_gives_each_the_same_share_and_its_interval_holds_it(made):
    table = made.table()
    sources = next(each for each in table.columns if each.id == "loss").protocols_at("tiny")
    assert len(sources) == 5
    for method in made.grid.methods:
        parts = [table.filled.cells["llama3", method, f"loss_{source}"].mean for source in sources]
        whole = table.filled.cells["llama3", method, "loss"]
        assert whole.mean == pytest.approx(np.mean(parts))
        assert len(whole.items) == 5 * ROWS
        assert whole.interval[0] < whole.mean < whole.interval[1]
    each = next(each for each in table.comparisons if (each.method, each.column) == ("idlora", "loss"))
    assert each.ci_low < each.difference < each.ci_high


def test_a_source_that_a_run_was_not_measured_on_leaves_the_mean_empty_and_named(made):
    (made.run("multitask_llama3", "lora").eval_folder("heldout", "alpaca") / "DONE").unlink()
    table = made.table()
    entries = next(row for row in table.rows if row.method == "lora").entries
    assert (entries["loss"], entries["loss_alpaca"]) == (None, None)
    assert entries["loss_codealpaca"] is not None
    assert [each.reason for each in table.missing] == ["not evaluated on heldout under alpaca"]


def test_losses_by_another_tokenizer_are_never_paired(made):
    run = made.run("multitask_llama3", "idlora")
    (run.eval_folder("heldout", "gsm8k_test") / "DONE").unlink()
    made.record_losses(run, "gsm8k_test", nats=1.0 * TOKENS, tokens=TOKENS + 1)
    with pytest.raises(GridError, match="weigh the heldout items otherwise: their tokenizers differ"):
        made.table()


def test_the_interval_of_a_weighted_mean_is_that_of_resampled_rows_and_their_tokens():
    rng = np.random.default_rng(3)
    tokens, losses = rng.integers(5, 400, 300), 1 + rng.normal(0, 0.4, 300)
    drawn = rng.integers(300, size=(RESAMPLES, 300))
    ratios = (losses * tokens)[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    assert interval(losses, tokens) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.004)


def test_how_sources_differ_is_no_part_of_the_error_of_their_mean():
    rng, size = np.random.default_rng(5), 200
    values = np.concatenate([rng.normal(0, 1, size), rng.normal(50, 1, size)])
    mean, rest = residuals(values, np.ones(2 * size), np.repeat([0, 1], size))
    drawn = rng.integers(size, size=(RESAMPLES, size))
    means = (values[:size][drawn].mean(axis=1) + rng.permutation(values[size:][drawn].mean(axis=1))) / 2
    assert around(mean, rest, bootstrap) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)


@pytest.fixture
def sweep(world, repository):
    """Fill the cells of a sweep with two seeds of every method, evaluated only on the held-out loss."""

    def fill(table: str):
        grid = load_grid(repository / "experiments" / table).at("tiny").showing(["heldout"], "tiny")
        return world(grid=dataclasses.replace(grid, seeds=(0, 1)), name=table).fill()

    return fill


def test_a_sweep_has_every_pair_with_counts_and_the_verdict_of_the_interval_over_seeds(sweep, tmp_path):
    table = sweep("table7").table()
    paths = write_table(table, tmp_path)[-2:]
    rows, words = rows_of(paths[0]), paths[1].read_text(encoding="utf-8")
    write_significance(table.filled, tmp_path / "tests.csv", table.comparisons)
    tests = {(r["method"], r["reference"]): r for r in rows_of(tmp_path / "tests.csv") if r["column"] == "loss"}
    assert tests.keys() == set(table.grid.reference.items())
    trained = [method for method in table.grid.methods if method != UNTUNED]
    assert {frozenset((row["method"], row["reference"])) for row in rows} == set(
        map(frozenset, combinations(trained, 2))
    )
    for row in rows:
        low, high, difference = (float(row[name]) for name in ("seeds_ci_low", "seeds_ci_high", "difference"))
        ahead = int(row["seeds_ahead"])
        assert row["verdict"] == ("level" if low <= 0 <= high or ahead == 1 else "ahead" if high < 0 else "behind")
        assert difference == pytest.approx(float(row["value"]) - float(row["reference_value"]), abs=2e-6)
        assert row["trained"] == {"lora": "12000", "idlora": "7000"}.get(row["method"], "10000")
        if test := tests.get((row["method"], row["reference"])):
            same = ("difference", "ci_low", "ci_high", "seeds_ci_low", "seeds_ci_high", "seeds_ahead", "metric")
            assert [row[name] for name in same] == [test[name] for name in same]
    assert {row["verdict"] for row in rows} > {"level"}
    assert "| ID-LoRA r=12 | LoRA r=6 | 7,000 | 12,000 | " in words
    assert words.count("\n| ") == len(rows) + 2


def test_clusters_have_a_file_of_pairs_and_other_tables_have_none(sweep, tmp_path):
    filled = sweep("table8").gather()
    assert [path.name for path in write_sweep(filled, tmp_path)] == ["clusters.csv", "clusters.md"]
    filled.cells = {key: cell for key, cell in filled.cells.items() if key[2] != "loss"}
    assert write_sweep(filled, tmp_path / "none") == write_sweep(sweep("table3").gather(), tmp_path / "none") == []


def test_a_pair_of_which_one_seed_has_the_other_one_ahead_is_level_whatever_its_interval():
    row = {"method": "a", "reference": "b", "column": "loss", "metric": "nats_per_token", "difference": "-0.01"}
    row |= {"ci_low": "-0.02", "ci_high": "-0.001", "seeds_ci_low": "-0.02", "seeds_ci_high": "-0.001", "seeds": "3"}
    pairs = {ahead: pair_of(row | {"seeds_ahead": ahead}) for ahead in ("0", "1", "2", "3")}
    assert [pair.verdict for pair in pairs.values()] == ["ahead of", "level with", "level with", "ahead of"]
    assert [pair.reversed.verdict for pair in pairs.values()] == ["behind", "level with", "level with", "behind"]
    one_run = row | {"seeds": "1", "seeds_ahead": "", "seeds_ci_low": "", "seeds_ci_high": ""}
    assert pair_of(one_run).verdict == "ahead of"


def test_the_scores_of_known_answers_are_written_beside_a_table_that_has_them(problems, tmp_path):
    made = problems(lora=[1] * 5, idlora=[1] * 5)
    run = made.run("gsm8k_llama3", "lora", benchmarks=[])
    made.evaluate(run, "gsm8k", np.ones((5, 1), dtype=int), controls={"always right": 1.0, "never right": 0.0})
    path = write_table(made.table(), tmp_path)[-1]
    assert path.name == "table1_known.csv"
    assert "Controls, known answers scored like the models': " in path.with_name("table1.md").read_text()
    known = [(row["column"], row["answers"], float(row["value"])) for row in rows_of(path)]
    assert known == [("gsm8k", "always right", 100.0), ("gsm8k", "never right", 0.0)]
