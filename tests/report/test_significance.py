"""Significance tests against known values, and properties that a wrong unit or pairing would violate."""

import csv
import itertools

import numpy as np
import pytest
from scipy import stats

from reproduction.report import latex, markdown, summary, write_significance, write_table
from reproduction.report.intervals import bootstrap_seeds
from reproduction.report.significance import (
    detectable_difference,
    holm,
    mcnemar,
    rank_biserial,
    seeds_sentence,
    smallest_p,
    wilcoxon,
)


def by_enumeration(differences):
    """Compute the two-sided p of W+ over all 2^m sign patterns, from the definition."""
    nonzero = np.array([d for d in differences if d])
    ranks = stats.rankdata(np.abs(nonzero))
    seen = ranks[nonzero > 0].sum()
    sums = [ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=len(nonzero))]
    tails = np.mean([s <= seen for s in sums]), np.mean([s >= seen for s in sums])
    return min(1.0, 2 * min(tails))


@pytest.mark.parametrize(
    "differences",
    [[1, 1, 1, 1, 1, -1, 0, 0], [0.1, 0.2, 0.2, -0.3, 0.5, 0], [1, -1], [0.3], [0.5, 0.5, -0.5, 1, 1, -1, 0.25, 0.75]],
)
def test_the_exact_p_is_that_of_all_sign_patterns_ties_included(differences):
    statistic, p, method = wilcoxon(differences)
    assert (method, p) == ("exact", pytest.approx(by_enumeration(differences)))
    assert statistic == stats.wilcoxon(differences, zero_method="wilcox", method="asymptotic").statistic


def test_up_to_fifty_differing_items_the_test_is_exact_and_above_scipys_normal_approximation():
    differences = np.random.default_rng(3).normal(0.35, 1, size=51)
    statistic, p, method = wilcoxon([*differences, 0, 0])
    expected = stats.wilcoxon(differences, correction=False, method="asymptotic")
    assert (method, statistic, p) == ("approx", expected.statistic, pytest.approx(expected.pvalue))
    p, method = wilcoxon(differences[:50])[1:]
    assert (method, p) == ("exact", pytest.approx(stats.wilcoxon(differences[:50], method="exact").pvalue))


def test_nothing_but_zeros_is_p_one_and_no_effect():
    assert wilcoxon(np.zeros(20)) == (0.0, 1.0, "all differences zero")
    assert (mcnemar(np.zeros(20)), rank_biserial(np.zeros(20)), smallest_p(0)) == (1.0, 0.0, 1.0)
    assert detectable_difference(np.zeros(20), alpha=0.05) is None


def test_differences_equal_but_for_float_error_are_ties_and_zeros():
    blurred = [0.1 + 0.2, 0.3, -(0.1 + 0.2), 0.1 + 0.2 - 0.3, 0.7, 0.7 + 1e-16]
    assert wilcoxon(blurred) == wilcoxon([0.3, 0.3, -0.3, 0.0, 0.7, 0.7])


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (9, 2), (3, 3), (30, 12)])
def test_on_01_items_wilcoxon_is_the_sign_test_and_so_exact_mcnemar(wins, losses):
    differences = [1] * wins + [-1] * losses + [0] * 40
    assert wilcoxon(differences)[1] == pytest.approx(mcnemar(differences))
    assert mcnemar(differences) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


def test_rank_biserial_is_the_difference_of_rank_shares():
    assert rank_biserial([1, 2, -3]) == 0.0  # ranks 1 + 2 against 3
    assert rank_biserial([3, 2, -1]) == pytest.approx(4 / 6)
    assert rank_biserial([-1, -1, 0]) == -1.0


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_five_differing_items_cannot_reach_five_percent_and_six_can():
    assert wilcoxon([1] * 5)[1] == smallest_p(5) == pytest.approx(0.0625)
    assert wilcoxon([1] * 6)[1] == smallest_p(6) == pytest.approx(0.03125)
    assert detectable_difference([1] * 5 + [0] * 50, alpha=0.05) is None
    assert "no test over 5 seeds can reach 0.05" in seeds_sentence(5, alpha=0.05)
    assert seeds_sentence(6, alpha=0.05).endswith("over 6 seeds is 0.0312")


@pytest.mark.parametrize("discordant", [12, 50, 90])
def test_the_detectable_difference_is_found_with_the_power_that_it_claims(discordant):
    n, rng = 200, np.random.default_rng(0)
    differences = np.array([1, -1] * (discordant // 2) + [0] * (n - discordant))
    chance = (1 + detectable_difference(differences, alpha=0.05) * n / discordant) / 2
    wins = rng.binomial(discordant, chance, size=2000)
    significant = {w: wilcoxon([1] * w + [-1] * (discordant - w))[1] < 0.05 for w in set(wins)}
    assert np.mean([significant[w] and w > discordant / 2 for w in wins]) == pytest.approx(0.8, abs=0.04)


def test_the_unit_is_the_problem_with_its_ten_samples_and_a_family_is_a_base_and_measure(table):
    for each in table.comparisons:
        assert each.method != "lora"
        assert each.wins + each.losses == each.nonzero <= each.items
        if each.benchmark == "humaneval":
            assert (each.items, each.samples, each.unit, each.mcnemar_p) == (40, 10, "problem", each.mcnemar_p)
    for base, lower in itertools.product(table.grid.bases, (False, True)):
        of_base = [each for each in table.comparisons if each.base == base and each.family_size]
        family = [each for each in of_base if each.measure.lower_is_better == lower]
        assert len(family) == 5 * 5 == family[0].family_size
        assert len({each.family for each in family}) == 1
        assert [each.holm_p for each in family] == holm([each.wilcoxon_p for each in family])
    beside = [each for each in table.comparisons if each.column == "over_refusal"]
    assert len(beside) == 2 * 5
    assert all(each.holm_p is None and not each.dagger for each in beside)


def test_the_file_and_the_summary_have_every_test(table, tmp_path):
    write_significance(table.filled, tmp_path / "table1.csv", table.comparisons)
    rows = list(csv.DictReader((tmp_path / "table1.csv").open()))
    assert len(rows) == len(table.comparisons) == 60 + 50
    for row, each in zip(rows, table.comparisons, strict=True):
        factor = {"percent": 100, "nats a token": 1}[row["measure"]]
        for name in ("value", "difference", "ci_low", "ci_high"):
            assert float(row[name]) == pytest.approx(factor * getattr(each, name), abs=1e-5)
        assert float(row["wilcoxon_p"]) == pytest.approx(each.wilcoxon_p, rel=1e-5)
        assert (row["mcnemar_p"] == "", row["seeds_p"], row["seeds_ahead"]) == (each.mcnemar_p is None, "", "")
        assert (row["dagger"] == "yes") == each.dagger
        assert not each.dagger or (each.wilcoxon_p < 0.05 and each.measure.lead(each.difference) > 0)
        assert "two checkpoints differ" in row["note"]
        assert ("cannot reach 0.05" in row["note"]) == (row["detectable_difference"] == "") == bool(each.reach)
    words = summary(table.filled, table.comparisons)
    assert words.count("†") == 1 + sum(each.dagger for each in table.comparisons)
    assert words.count("cannot reach 0.05") == sum(bool(each.reach) for each in table.comparisons) > 0


def drawn(seeds, rate, *, start=0):
    return [(np.random.default_rng(start + seed).random(40) < rate).astype(int) for seed in range(seeds)]


def test_a_value_is_the_mean_over_seeds_with_their_standard_deviation_and_interval(problems, tmp_path):
    idlora = drawn(3, 0.7, start=9)
    table = problems(base=[0] * 40, lora=drawn(3, 0.4), idlora=idlora).table()
    entry, means = table.rows[-1].entries["gsm8k"], np.mean(idlora, axis=1)
    assert entry.value == pytest.approx(100 * means.mean(), abs=0.051)
    assert entry.spread == pytest.approx(100 * means.std(ddof=1), abs=0.051)
    assert (entry.low, entry.high) == pytest.approx([100 * bound for bound in bootstrap_seeds(idlora)], abs=0.051)
    untuned = table.filled.cells["llama3", "base", "gsm8k"]
    assert (untuned.seeds, untuned.spread) == (1, None)  # one run for all seeds
    assert f" ± {entry.spread:.1f} [" in markdown(table)
    assert f"$\\pm$ {entry.spread:.1f}" in latex(table)
    rows = {row["method"]: row for row in csv.DictReader(write_table(table, tmp_path)[1].open())}
    assert (rows["idlora"]["gsm8k_spread"], rows["idlora"]["seeds"]) == (f"{entry.spread:.1f}", "3")
    assert rows["base"]["gsm8k_spread"] == ""
    assert "no test over 3 seeds can reach 0.05" in markdown(table)
    assert "(s) = 0.250" in markdown(table)
    assert "checkpoints" not in markdown(table)
    lora, own = (table.filled.cells["llama3", method, "gsm8k"] for method in ("lora", "idlora"))
    seeds, between = np.sqrt((lora.spread**2 + own.spread**2) / 2), abs(lora.mean - own.mean) / np.sqrt(2)
    spreads = f"{100 * seeds:.1f} | {100 * between:.1f} | {between / seeds:.1f} |"
    assert f"| gsm8k | percentage points | {spreads}" in markdown(table)


def test_a_seed_is_no_new_item_and_a_seed_as_unit_needs_six(problems, tmp_path):
    def test(name, lora, idlora):
        return next(each for each in problems(name, lora=lora, idlora=idlora).table().comparisons)

    lora, idlora = drawn(6, 0.3), drawn(6, 0.8, start=9)
    one, thrice = test("one", lora[:1], idlora[:1]), test("thrice", lora[:1] * 3, idlora[:1] * 3)
    assert (thrice.items, thrice.nonzero, thrice.seeds) == (one.items, one.nonzero, 3)
    assert thrice.wilcoxon_p == one.wilcoxon_p < 1
    assert (one.seeds_p, thrice.seeds_p, one.seeds_ci) == (None, 0.25, None)
    assert ("two checkpoints differ" in one.scope, "speaks of methods" in thrice.scope) == (True, True)
    six, mixed = test("six", lora, idlora), test("mixed", lora, [*idlora[:5], [0] * 40])
    assert (six.seeds_p, six.seeds_ahead) == (smallest_p(6), 6) == (0.03125, 6)
    assert six.seeds_ci[0] <= six.difference <= six.seeds_ci[1]
    assert six.mcnemar_p is None  # sixths are no 0/1 items
    assert (mixed.seeds_ahead, mixed.seeds_p > six.seeds_p) == (5, True)
    filled = problems("six", lora=lora, idlora=idlora).gather()
    write_significance(filled, tmp_path / "tests.csv", [six])
    (row,) = csv.DictReader((tmp_path / "tests.csv").open())
    assert (row["seeds"], row["seeds_p"], row["seeds_ahead"]) == ("6", "0.03125", "6")
    assert float(row["seeds_ci_low"]) < float(row["difference"]) < float(row["seeds_ci_high"])
    assert "over seeds p = 0.031 (6 of 6 higher)" in summary(filled, [six])


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_outcome_over_all_seeds_has_the_interval_of_one_seeds_items(problems, outcome):
    cells = problems(lora=[[outcome] * 40] * 3, idlora=drawn(3, 0.5)).gather().cells
    low, high = cells["llama3", "lora", "gsm8k"].interval
    assert high - low > 0.05
    assert low <= outcome <= high
