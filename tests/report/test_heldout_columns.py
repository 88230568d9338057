"""Columns of held-out loss: a mean over tokens with rows as items, lower is better, a family of their own."""

import csv
import dataclasses

import numpy as np
import pytest

from reproduction.report import GridError, build_table, gather, load_grid, markdown, write_significance
from reproduction.report.intervals import RESAMPLES, around, bootstrap, bootstrap_seeds, interval, residuals
from reproduction.report.measures import measure_of
from reproduction.report.significance import compare_all
from reproduction.report.spread import spreads
from reproduction.report.statistics import summary

ROWS = 70
"""Of each source, in the runs that `world` makes up."""

TOKENS = np.random.default_rng(0).integers(2, 300, ROWS)
LOSS = measure_of("nats_per_token")


@pytest.fixture(scope="session")
def table2(repository):
    grid = load_grid(repository / "experiments" / "table2")
    own = {"bases": {"llama3": grid.bases["llama3"]}, "experiments": ("multitask_llama3",)}
    return dataclasses.replace(grid, methods=("base", "lora", "idlora"), **own)


def of(rows, method: str, column: str):
    return next(each for each in rows if (each.method, each.column) == (method, column))


def with_losses(world, grid, shifts: dict[str, np.ndarray | float], source: str = "gsm8k_test"):
    """A filled world in which a source's losses are known: of each row 1 nat a token and the method's shift."""
    made = world(grid=grid).fill()
    for experiment, method, _ in grid.cells():
        run = made.run(experiment, method)
        (run.eval_folder("heldout", source) / "DONE").unlink()
        made.record_losses(run, source, nats=(1.0 + shifts[method]) * TOKENS, tokens=TOKENS)
    return made


def test_a_value_is_all_nats_over_all_tokens_printed_to_four_digits(world, table2) -> None:
    shifts = np.random.default_rng(1).normal(0, 0.2, ROWS)
    made = with_losses(world, table2, {"base": 0.5, "lora": 0.0, "idlora": shifts})
    table = build_table(made.grid, made.root, scale="tiny")
    row = next(row for row in table.rows if row.method == "idlora")
    wanted = ((1 + shifts) * TOKENS).sum() / TOKENS.sum()
    assert row.entries["loss_gsm8k_test"].value == round(wanted, 4) != round(1 + shifts.mean(), 4)
    assert f"{wanted:.4f}" in markdown(table)
    cell = table.filled.cells["llama3", "idlora", "loss_gsm8k_test"]
    assert cell.mean == pytest.approx(wanted)


def test_the_lower_loss_is_ahead_bold_and_marked(world, table2) -> None:
    made = with_losses(world, table2, {"base": 0.5, "lora": 0.0, "idlora": -0.01})
    table = build_table(made.grid, made.root, scale="tiny")
    marks = {row.method: (e.best, e.dagger) for row in table.rows if (e := row.entries["loss_gsm8k_test"])}
    assert marks == {"base": (False, False), "lora": (False, False), "idlora": (True, True)}
    each = of(table.comparisons, "idlora", "loss_gsm8k_test")
    assert each.difference == pytest.approx(-0.01)
    assert (each.wins, each.losses, each.seeds_ahead) == (ROWS, 0, 1)
    behind = of(table.comparisons, "base", "loss_gsm8k_test")
    assert (behind.wins, behind.losses, behind.dagger) == (0, ROWS, False)
    assert behind.wilcoxon_p < 0.001
    told = summary(table.filled, [each])
    assert f"{ROWS} differ ({ROWS} lower, 0 higher)" in told


def test_rows_are_the_items_of_the_tests_and_a_loss_is_no_percentage(world, table2, tmp_path) -> None:
    made = with_losses(world, table2, {"base": 0.5, "lora": 0.0, "idlora": 0.002})
    filled = gather(made.grid, made.root, scale="tiny")
    write_significance(filled, tmp_path / "tests.csv")
    rows = {(r["method"], r["column"]): r for r in csv.DictReader((tmp_path / "tests.csv").open())}
    row = rows["idlora", "loss_gsm8k_test"]
    assert (row["unit"], row["items"], row["measure"]) == ("row", str(ROWS), "nats a token")
    assert float(row["difference"]) == pytest.approx(0.002)
    assert float(row["value"]) == pytest.approx(1.002)
    assert rows["idlora", "gsm8k"]["measure"] == "percent"
    assert row["family"] != rows["idlora", "gsm8k"]["family"]
    assert row["mcnemar_p"] == ""
    markdown_rows = markdown(build_table(made.grid, made.root, scale="tiny"))
    assert "+0.0020 [" in markdown_rows


def test_seeds_and_methods_stand_side_by_side_in_what_a_column_can_tell_apart(world, table2) -> None:
    made = world(grid=dataclasses.replace(table2, seeds=(0, 1, 2))).fill()
    filled = gather(made.grid, made.root, scale="tiny")
    found = {each.column.id: each for each in spreads(filled)}
    lora, idlora = (filled.cells["llama3", method, "loss_alpaca"] for method in ("lora", "idlora"))
    assert found["loss_alpaca"].seeds == pytest.approx(np.sqrt((lora.spread**2 + idlora.spread**2) / 2))
    assert found["loss_alpaca"].methods == pytest.approx(abs(lora.mean - idlora.mean) / np.sqrt(2))
    assert set(found) == {column.id for column in filled.columns}
    shown = markdown(build_table(made.grid, made.root, scale="tiny"))
    row = found["loss_alpaca"]
    assert f"| loss_alpaca | nats a token | {row.seeds:.4f} | {row.methods:.4f} | {row.ratio:.1f} |" in shown
    one = world(grid=table2, name="one").fill()
    assert spreads(gather(one.grid, one.root, scale="tiny")) == []


def test_the_mean_of_the_sources_gives_each_the_same_share_whatever_its_size(world, table2) -> None:
    made = world(grid=table2).fill()
    filled = gather(made.grid, made.root, scale="tiny")
    sources = next(each for each in filled.columns if each.id == "loss").protocols_at("tiny")
    assert len(sources) == 5
    for method in table2.methods:
        parts = [filled.cells["llama3", method, f"loss_{source}"].mean for source in sources]
        whole = filled.cells["llama3", method, "loss"]
        assert whole.mean == pytest.approx(np.mean(parts))
        assert len(whole.items) == 5 * ROWS
    each = of(compare_all(filled), "idlora", "loss")
    assert each.difference == pytest.approx(
        filled.cells["llama3", "idlora", "loss"].mean - filled.cells["llama3", "lora", "loss"].mean
    )


def test_how_sources_differ_is_no_part_of_the_error_of_their_mean() -> None:
    rng, size = np.random.default_rng(5), 200
    strata = np.repeat([0, 1], size)
    values = np.concatenate([rng.normal(0, 1, size), rng.normal(50, 1, size)])
    mean, rest = residuals(values, np.ones(2 * size), strata)
    low, high = around(mean, rest, bootstrap)
    drawn = rng.integers(size, size=(RESAMPLES, size))
    means = (values[:size][drawn].mean(axis=1) + rng.permutation(values[size:][drawn].mean(axis=1))) / 2
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)


def test_the_mean_of_the_sources_and_its_differences_have_intervals_within_the_sources(world, table2) -> None:
    made = world(grid=dataclasses.replace(table2, seeds=(0, 1))).fill()
    filled = gather(made.grid, made.root, scale="tiny")
    for column in ("loss", "loss_alpaca"):
        cell = filled.cells["llama3", "idlora", column]
        assert cell.interval == cell.resampled(cell.values, over_seeds=True)
        assert cell.interval[0] < cell.mean < cell.interval[1]
    each = of(compare_all(filled), "idlora", "loss")
    assert each.ci_low < each.difference < each.ci_high


def test_a_source_that_a_run_was_not_measured_on_leaves_the_mean_empty_and_named(world, table2) -> None:
    made = world(grid=table2).fill()
    (made.run("multitask_llama3", "lora").eval_folder("heldout", "alpaca") / "DONE").unlink()
    table = build_table(made.grid, made.root, scale="tiny")
    entries = next(row for row in table.rows if row.method == "lora").entries
    assert (entries["loss"], entries["loss_alpaca"]) == (None, None)
    assert entries["loss_codealpaca"] is not None
    assert [each.reason for each in table.missing] == ["not evaluated on heldout under alpaca"]


def test_losses_by_another_tokenizer_are_never_paired(world, table2) -> None:
    made = with_losses(world, table2, {"base": 0.5, "lora": 0.0, "idlora": 0.0})
    run = made.run("multitask_llama3", "idlora")
    (run.eval_folder("heldout", "gsm8k_test") / "DONE").unlink()
    made.record_losses(run, "gsm8k_test", nats=1.0 * TOKENS, tokens=TOKENS + 1)
    with pytest.raises(GridError, match="weigh the heldout items otherwise: their tokenizers differ"):
        build_table(made.grid, made.root, scale="tiny")


def test_the_interval_of_a_weighted_mean_is_that_of_resampled_rows_and_their_tokens() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 400, 300)
    losses = 1 + rng.normal(0, 0.4, 300)
    low, high = interval(losses, tokens)
    drawn = rng.integers(300, size=(RESAMPLES, 300))
    ratios = (losses * tokens)[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    assert (low, high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.004)
    assert high - low < 0.6 * np.subtract(
        *bootstrap(losses * tokens / tokens.mean())[::-1]
    )  # lengths alone vary so much


def test_many_different_values_are_resampled_as_few_are() -> None:
    rng = np.random.default_rng(4)
    many = rng.normal(0, 1, 400)
    few = np.round(many, 0)
    for values, drawn in ((many, bootstrap(many)), (few, bootstrap(few))):
        error = values.std() / np.sqrt(400)
        assert drawn == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)
    seeds = np.stack([many, many + 0.1, many - 0.1])
    low, high = bootstrap_seeds(seeds)
    assert high - low > np.subtract(*bootstrap(many)[::-1])
    assert low < seeds.mean() < high
