"""Several seeds: what a table then shows, what is a unit of its tests, and what so few seeds can reach."""

import csv
import dataclasses

import numpy as np
import pytest

from reproduction.report import build_table, gather, latex, markdown, summary, write_significance, write_table
from reproduction.report.intervals import RESAMPLES, bootstrap, bootstrap_seeds
from reproduction.report.significance import compare_all, seeds_sentence, smallest_p


@pytest.fixture
def seeded(world, few):
    """A world of word problems: outcomes (seeds, n) for each method; the untuned base is one run."""

    def make(name="seeded", **outcomes):
        seeds = tuple(range(max(len(values) for values in outcomes.values())))
        narrow = dataclasses.replace(few, experiments=("gsm8k_llama3",), columns=few.columns[:1], seeds=seeds)
        made = world(grid=narrow, name=name)
        for method, values in outcomes.items():
            for seed, row in enumerate(values):
                run = made.run("gsm8k_llama3", method, seed=seed, benchmarks=[])
                made.evaluate(run, "gsm8k", np.array(row)[:, None])
        return made

    return make


def drawn(seeds, rate, *, n=40, start=0):
    return [(np.random.default_rng(start + seed).random(n) < rate).astype(int) for seed in range(seeds)]


def table_of(made):
    return build_table(made.grid, made.root, scale="tiny")


def comparison(made, method="idlora"):
    return next(each for each in compare_all(gather(made.grid, made.root, scale="tiny")) if each.method == method)


def test_a_value_is_the_mean_over_seeds_with_their_standard_deviation_and_interval(seeded, tmp_path):
    lora, idlora = drawn(3, 0.4), drawn(3, 0.7, start=9)
    made = seeded(base=[[0] * 40], lora=lora, idlora=idlora)
    table = table_of(made)
    entry = next(row.entries["gsm8k"] for row in table.rows if row.method == "idlora")
    means = np.mean(idlora, axis=1)
    assert entry.value == pytest.approx(100 * means.mean(), abs=0.051)
    assert entry.spread == pytest.approx(100 * means.std(ddof=1), abs=0.051)
    assert (entry.low, entry.high) == pytest.approx([100 * bound for bound in bootstrap_seeds(idlora)], abs=0.051)
    shown = f"{entry.value:.1f}** ± {entry.spread:.1f} [" if entry.best else f"{entry.value:.1f} ± {entry.spread:.1f} ["
    assert shown.replace("** ±", "**† ±") in markdown(table) or shown in markdown(table)
    assert f"$\\pm$ {entry.spread:.1f}" in latex(table)
    path = next(path for path in write_table(table, tmp_path) if path.name == "table1.csv")
    rows = {row["method"]: row for row in csv.DictReader(path.read_text().splitlines())}
    assert (rows["idlora"]["gsm8k_spread"], rows["idlora"]["seeds"]) == (f"{entry.spread:.1f}", "3")
    assert rows["base"]["gsm8k_spread"] == ""


def test_an_untuned_base_is_one_run_for_all_seeds_and_has_no_spread(seeded):
    made = seeded(base=[[1, 0] * 20], lora=drawn(3, 0.4), idlora=drawn(3, 0.7))
    cells = gather(made.grid, made.root, scale="tiny").cells
    assert cells["llama3", "base", "gsm8k"].seeds == 1
    assert cells["llama3", "base", "gsm8k"].spread is None
    assert cells["llama3", "lora", "gsm8k"].seeds == 3
    assert comparison(made, "base").seeds_p is not None  # against three seeds of the reference


def test_a_seed_is_no_new_item(seeded):
    lora, idlora = drawn(1, 0.4)[0], drawn(1, 0.7, start=9)[0]
    one = comparison(seeded("one", lora=[lora], idlora=[idlora]))
    three = comparison(seeded("three", lora=[lora] * 3, idlora=[idlora] * 3))
    assert (three.items, three.nonzero) == (one.items, one.nonzero) == (40, three.wins + three.losses)
    assert three.wilcoxon_p == one.wilcoxon_p < 1
    assert (one.seeds_p, three.seeds_p) == (None, 0.25)


def test_with_the_seed_as_unit_three_cannot_reach_five_percent_and_six_can(seeded):
    lora, idlora = drawn(6, 0.3), drawn(6, 0.8, start=9)
    three = comparison(seeded("three", lora=lora[:3], idlora=idlora[:3]))
    six = comparison(seeded("six", lora=lora, idlora=idlora))
    assert (three.seeds_p, three.seeds_ahead) == (smallest_p(3), 3) == (0.25, 3)
    assert (six.seeds_p, six.seeds_ahead) == (smallest_p(6), 6) == (0.03125, 6)
    mixed = comparison(seeded("mixed", lora=lora, idlora=[*idlora[:5], [0] * 40]))
    assert mixed.seeds_ahead == 5
    assert mixed.seeds_p > six.seeds_p


def test_the_caption_says_how_many_seeds_and_what_a_test_over_them_can_reach(seeded):
    assert "no test over 3 seeds can reach 0.05" in seeds_sentence(3, alpha=0.05)
    assert "0.25" in seeds_sentence(3, alpha=0.05)
    assert "no test over 5 seeds" in seeds_sentence(5, alpha=0.05)
    assert "no test" not in seeds_sentence(6, alpha=0.05)
    assert "0.0312" in seeds_sentence(6, alpha=0.05)
    made = seeded(base=[[0] * 40], lora=drawn(3, 0.4), idlora=drawn(3, 0.7))
    shown = markdown(table_of(made))
    assert "Means over 3 seeds." in shown.split("|")[0]
    assert "no test over 3 seeds can reach 0.05 with the seed as unit: the smallest two-sided p is 0.25" in shown
    assert "(s) = 0.250" in shown
    assert "checkpoints" not in shown


def test_one_seed_has_no_spread_and_says_so(seeded):
    made = seeded(base=[[0] * 40], lora=drawn(1, 0.4), idlora=drawn(1, 0.7))
    shown = markdown(table_of(made))
    assert "±" not in shown
    assert "(s)" not in shown
    assert "two checkpoints differ" in shown


def test_the_file_and_the_words_have_the_test_over_seeds(seeded, tmp_path):
    made = seeded(lora=drawn(6, 0.3), idlora=drawn(6, 0.8, start=9))
    filled = gather(made.grid, made.root, scale="tiny")
    comparisons = write_significance(filled, tmp_path / "tests.csv")
    (row,) = csv.DictReader((tmp_path / "tests.csv").read_text().splitlines())
    assert (row["seeds"], row["seeds_p"], row["seeds_ahead"]) == ("6", "0.03125", "6")
    assert float(row["seeds_ci_low"]) < float(row["difference"]) < float(row["seeds_ci_high"])
    assert "over seeds p = 0.031 (6 of 6 higher)" in summary(filled, comparisons)


def test_the_interval_over_seeds_and_items_is_that_of_the_crossed_bootstrap():
    values = np.array(drawn(4, 0.5, n=30)) * np.linspace(0.5, 1, 30)
    rng = np.random.default_rng(1)
    seeds, items = rng.integers(0, 4, (RESAMPLES, 4)), rng.integers(0, 30, (RESAMPLES, 30))
    means = [values[np.ix_(s, i)].mean() for s, i in zip(seeds, items, strict=True)]
    assert bootstrap_seeds(values) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_the_interval_does_not_depend_on_the_order_of_the_items_and_knows_both_sources_of_noise():
    values = np.array(drawn(3, 0.5, n=60))
    assert bootstrap_seeds(values) == bootstrap_seeds(values[:, ::-1])
    alike, apart = np.tile(values[:1], (3, 1)), np.array([[0] * 60, [1] * 60, [0, 1] * 30])
    low, high = bootstrap_seeds(alike)
    assert (low, high) == pytest.approx(bootstrap(values[0]), abs=0.02)
    wide = bootstrap_seeds(apart)
    assert wide[1] - wide[0] > 2 * (high - low)


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_outcome_over_all_seeds_has_the_interval_of_one_seeds_items(seeded, outcome):
    made = seeded(lora=[[outcome] * 40] * 3, idlora=drawn(3, 0.5))
    cells = gather(made.grid, made.root, scale="tiny").cells
    low, high = next(cell for (_, method, _), cell in cells.items() if method == "lora").interval
    assert high - low > 0.05
    assert low <= outcome <= high
