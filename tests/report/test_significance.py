"""The tests of significance against known values, and the properties that a wrong unit or pairing would break."""

import csv
import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from reproduction.report import GridError, gather, summary, write_significance
from reproduction.report.cells import pair
from reproduction.report.significance import (
    compare_all,
    detectable_difference,
    holm,
    mcnemar,
    rank_biserial,
    smallest_p,
    wilcoxon,
)


def by_enumeration(differences):
    """Two-sided p of W+ over all 2^m sign patterns, from the definition."""
    nonzero = np.array([d for d in differences if d])
    ranks = stats.rankdata(np.abs(nonzero))
    seen = ranks[nonzero > 0].sum()
    sums = [ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=len(nonzero))]
    tails = np.mean([s <= seen for s in sums]), np.mean([s >= seen for s in sums])
    return min(1.0, 2 * min(tails))


@pytest.mark.parametrize(
    "differences",
    [
        [1, 1, 1, 1, 1, -1, 0, 0],
        [0.1, 0.2, 0.2, -0.3, 0.5, 0],
        [1, -1],
        [0.3],
        [0.5, 0.5, -0.5, 1, 1, -1, 0.25, 0.25, 0.75],
    ],
)
def test_the_exact_p_is_that_of_all_sign_patterns_ties_included(differences):
    statistic, p, method = wilcoxon(differences)
    assert method == "exact"
    assert p == pytest.approx(by_enumeration(differences))
    assert statistic == stats.wilcoxon(differences, zero_method="wilcox", method="asymptotic").statistic


def test_without_ties_the_exact_p_is_scipys():
    differences = np.random.default_rng(0).normal(0.3, 1, size=30)
    assert wilcoxon(differences)[1] == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_many_differences_take_scipys_normal_approximation():
    differences = np.random.default_rng(0).choice([-1, 0, 1], p=[0.2, 0.5, 0.3], size=400)
    statistic, p, method = wilcoxon(differences)
    expected = stats.wilcoxon(differences, zero_method="wilcox", correction=False, method="asymptotic")
    assert (method, statistic, p) == ("approx", expected.statistic, pytest.approx(expected.pvalue))


def test_exact_and_approximate_meet_at_the_border():
    differences = np.random.default_rng(3).normal(0.35, 1, size=51)
    assert wilcoxon(differences)[2] == "approx"
    assert wilcoxon(differences[:50])[2] == "exact"
    approximate = stats.wilcoxon(differences[:50], method="asymptotic", correction=False).pvalue
    assert wilcoxon(differences[:50])[1] == pytest.approx(approximate, abs=0.005)


def test_nothing_but_zeros_is_p_one_and_no_effect():
    assert wilcoxon(np.zeros(20)) == (0.0, 1.0, "all differences zero")
    assert (mcnemar(np.zeros(20)), rank_biserial(np.zeros(20)), smallest_p(0)) == (1.0, 0.0, 1.0)
    assert detectable_difference(np.zeros(20), alpha=0.05) is None


def test_differences_equal_but_for_float_error_are_ties_and_zeros():
    exact = [0.3, 0.3, -0.3, 0.0, 0.7, 0.7]
    blurred = [0.1 + 0.2, 0.3, -(0.1 + 0.2), 0.1 + 0.2 - 0.3, 0.7, 0.7 + 1e-16]
    assert wilcoxon(blurred) == wilcoxon(exact)


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (5, 0), (9, 2), (3, 3), (30, 12)])
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
    assert holm([]) == []


def test_holm_is_monotone_never_below_the_raw_p_and_never_above_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ps = list(rng.random(rng.integers(1, 12)) ** 3)
        adjusted = holm(ps)
        assert all(raw <= each <= 1 for raw, each in zip(ps, adjusted, strict=True))
        order = np.argsort(ps)
        assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_five_differing_items_cannot_reach_five_percent_and_six_can():
    assert wilcoxon([1] * 5)[1] == smallest_p(5) == pytest.approx(0.0625)
    assert wilcoxon([1] * 6)[1] == smallest_p(6) == pytest.approx(0.03125)
    assert detectable_difference([1] * 5 + [0] * 50, alpha=0.05) is None


@pytest.mark.parametrize("discordant", [12, 45, 90])
def test_the_detectable_difference_is_found_with_the_power_that_it_claims(discordant):
    n, rng = 200, np.random.default_rng(0)
    differences = np.array([1, -1] * (discordant // 2) + [0] * (n - discordant // 2 * 2))
    detectable = detectable_difference(differences, alpha=0.05)
    m = np.count_nonzero(differences)
    chance = (1 + detectable * n / m) / 2
    wins = rng.binomial(m, chance, size=2000)
    significant = {w: wilcoxon([1] * w + [-1] * (m - w))[1] < 0.05 for w in set(wins)}
    assert np.mean([significant[w] and w > m / 2 for w in wins]) == pytest.approx(0.8, abs=0.04)


def test_more_items_detect_less():
    small, large = (np.array([1, -1, 0, 0] * k) for k in (10, 100))
    assert detectable_difference(large, alpha=0.05) < detectable_difference(small, alpha=0.05)


def test_items_are_paired_by_id_whatever_the_order_of_the_files(world):
    straight, shuffled = world(name="straight"), world(name="shuffled")
    rows = []
    for made in (straight, shuffled):
        for method in ("lora", "idlora"):
            run = made.run("gsm8k_llama3", method, benchmarks=[])
            outcomes = made.draw("gsm8k_llama3", method, "gsm8k")
            made.evaluate(run, "gsm8k", outcomes, shuffle=made is shuffled and method == "idlora")
        cells = gather(made.grid, made.root, scale="tiny").cells
        rows.append(pair(cells["llama3", "idlora", "gsm8k"], cells["llama3", "lora", "gsm8k"]))
    np.testing.assert_array_equal(*rows)
    lined_up = np.sort(rows[0][0])
    assert not np.array_equal(rows[0][0], lined_up)  # an order of its own, which a pairing by position would lose


def test_the_unit_of_pass_at_k_is_the_problem(full):
    filled = gather(full.grid, full.root, scale="tiny")
    rows = [each for each in compare_all(filled) if each.benchmark == "humaneval"]
    assert rows
    for each in rows:
        assert (each.items, each.samples, each.unit) == (40, 10, "problem")
        assert each.wins + each.losses == each.nonzero <= 40


def test_samples_in_another_order_within_a_problem_change_nothing(world):
    ps = []
    for name, flip in (("as is", False), ("flipped", True)):
        made = world(name=name)
        for method in ("lora", "idlora"):
            run = made.run("codealpaca_llama3", method, benchmarks=[])
            outcomes = made.draw("codealpaca_llama3", method, "humaneval")
            made.evaluate(run, "humaneval", outcomes[:, ::-1] if flip and method == "idlora" else outcomes)
        ps.append([each.wilcoxon_p for each in compare_all(gather(made.grid, made.root, scale="tiny"))])
    assert ps[0] == ps[1]
    assert min(ps[0]) < 1


@pytest.mark.parametrize("change", ["one item less", "other content"])
def test_runs_that_saw_other_items_are_not_paired(world, change):
    made = world()
    outcomes = np.ones((20, 1), dtype=int)
    made.evaluate(made.run("gsm8k_llama3", "lora", benchmarks=[]), "gsm8k", outcomes)
    other = made.run("gsm8k_llama3", "idlora", benchmarks=[])
    if change == "one item less":
        made.evaluate(other, "gsm8k", outcomes[:-1])
    else:
        made.evaluate(other, "gsm8k", outcomes, edited=True)
    with pytest.raises(GridError, match="did not see the same gsm8k items: 1 differ"):
        compare_all(gather(made.grid, made.root, scale="tiny"))


def test_a_family_is_every_method_and_column_of_a_base_and_measure_and_what_is_beside_stands_outside(full):
    rows = compare_all(gather(full.grid, full.root, scale="tiny"))
    for base, lower in itertools.product(full.grid.bases, (False, True)):
        of_base = [each for each in rows if each.base == base and each.family_size]
        family = [each for each in of_base if each.measure.lower_is_better == lower]
        assert len(family) == 5 * 5 == family[0].family_size
        assert len({each.family for each in family}) == 1
        assert [each.holm_p for each in family] == holm([each.wilcoxon_p for each in family])
    beside = [each for each in rows if each.column == "over_refusal"]
    assert len(beside) == 2 * 5
    assert all(each.holm_p is None and not each.dagger for each in beside)
    assert not any(each.method == "lora" for each in rows)


def test_one_seed_speaks_of_checkpoints_and_several_of_methods(world, few):
    one = world(name="one", grid=few).fill()
    three = world(name="three", grid=dataclasses.replace(few, seeds=(0, 1, 2))).fill()
    single = compare_all(gather(one.grid, one.root, scale="tiny"))
    several = compare_all(gather(three.grid, three.root, scale="tiny"))
    assert all(each.seeds_ci is None and "two checkpoints differ" in each.scope for each in single)
    for each in several:
        assert (each.seeds, each.items) == (3, {"gsm8k": 60, "humaneval": 40, "heldout": 70}.get(each.benchmark, 50))
        assert each.seeds_ci[0] <= each.difference <= each.seeds_ci[1]
        assert "checkpoints" not in each.scope
    assert any(each.mcnemar_p is not None for each in single if each.benchmark == "gsm8k")
    averaged = [each for each in several if each.benchmark == "gsm8k" and each.method == "idlora"]
    assert all(each.mcnemar_p is None for each in averaged)  # thirds are no 0/1 items


def test_the_file_and_the_summary_say_the_same_and_repeat(full, tmp_path):
    filled = gather(full.grid, full.root, scale="tiny")
    out = tmp_path / "significance" / "table1.csv"
    comparisons = write_significance(filled, out)
    first = out.read_bytes()
    write_significance(gather(full.grid, full.root, scale="tiny"), out)
    assert out.read_bytes() == first
    rows = list(csv.DictReader(first.decode().splitlines()))
    assert len(rows) == len(comparisons) == 60 + 50
    for row, each in zip(rows, comparisons, strict=True):
        factor = {"percent": 100, "nats a token": 1}[row["measure"]]
        assert float(row["difference"]) == pytest.approx(factor * each.difference, abs=1e-5)
        assert float(row["wilcoxon_p"]) == pytest.approx(each.wilcoxon_p, rel=1e-5)
        assert (row["dagger"] == "yes") == each.dagger
        assert not each.dagger or (each.wilcoxon_p < 0.05 and each.measure.lead(each.difference) > 0)
        assert "two checkpoints differ" in row["note"]
    told = summary(filled, comparisons)
    assert told.count("†") == 1 + sum(each.dagger for each in comparisons)
    assert told.count("cannot reach 0.05") == sum(bool(each.reach) for each in comparisons) > 0
    assert "zero differences dropped ('wilcox')" in told
