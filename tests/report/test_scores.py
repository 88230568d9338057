"""Scores from records to units, and from units to intervals."""

import itertools
import math
import statistics

import numpy as np
import pytest

from reproduction.records import RecordError, read_items, write_items
from reproduction.report.intervals import RESAMPLES, bootstrap, bootstrap_seeds, interval, wilson
from reproduction.report.scores import read_scores, score_lines


@pytest.fixture
def evaluated(world):
    """Write one evaluation with the given outcomes (items, samples) and return it as found."""

    def evaluate(benchmark, outcomes, **meta):
        made = world(name=f"{benchmark} {np.shape(outcomes)}")
        run = made.run("gsm8k_llama3", "lora", benchmarks=[])
        made.evaluate(run, benchmark, np.array(outcomes), **meta)
        return run.evaluations()[0]

    return evaluate


def test_pass_at_k_is_the_unbiased_estimate_of_each_problem(evaluated):
    outcomes = [[1] * c + [0] * (10 - c) for c in (0, 1, 4, 10)]
    metrics = read_scores(evaluated("humaneval", outcomes))
    assert set(metrics) == {"pass@1", "pass@5", "pass@10"}
    for k in (1, 5, 10):
        # by definition: the share of the k-subsets of ten samples with a passing one
        expected = [
            sum(any(row[i] for i in drawn) for drawn in itertools.combinations(range(10), k)) / math.comb(10, k)
            for row in outcomes
        ]
        assert list(metrics[f"pass@{k}"].values.values()) == pytest.approx(expected)
    assert (metrics["pass@1"].samples, metrics["pass@1"].unit) == (10, "problem")


def test_k_beyond_the_number_of_samples_is_no_metric(evaluated):
    assert set(read_scores(evaluated("humaneval", [[1, 0, 0, 0, 0, 1]]))) == {"pass@1", "pass@5"}


def test_an_evaluation_is_told_in_lines_with_interval_n_and_what_is_odd_about_it(evaluated):
    lines = score_lines(evaluated("humaneval", [[1] * 10, [0] * 10]).folder)
    assert lines[0] == "humaneval only pass@1: 50.0 % [9.5, 90.5], 2 problems x 10 samples"
    assert len(lines) == 3
    evaluation = evaluated("mmlu", [[1], [0], [0], [1]], protocol={"name": "5shot", "num_fewshot": 5})
    records = read_items(evaluation.folder)
    for empty in (0, 2, 3):
        changes = [{"raw": " \n" if n < empty else "7", "shots": 5 - (n == 2)} for n in range(4)]
        write_items(evaluation.folder, [record | change for record, change in zip(records, changes, strict=True)])
        words = "\n".join(score_lines(evaluation.folder))
        assert "mmlu 5shot: 1 of 4 prompts leave out worked examples" in words
        assert (f"mmlu 5shot: {empty} of 4 answers are empty" in words) == (empty > 0)
        assert ("warning" in words) == (empty == 3)


def test_an_evaluation_with_other_items_or_unequal_samples_is_refused(evaluated):
    with pytest.raises(RecordError, match=r"holds 3 items, its meta\.json says 4"):
        read_scores(evaluated("gsm8k", [[1], [0], [1]], items=4))
    evaluation = evaluated("humaneval", [[1, 0], [1, 0]])
    write_items(evaluation.folder, read_items(evaluation.folder)[:-1])
    with pytest.raises(RecordError, match=r"\[1, 2\] samples"):
        read_scores(evaluation)


def test_wilson_is_the_textbooks_formula_and_has_a_width_at_zero_of_n():
    n, successes, z = 40, 6, statistics.NormalDist().inv_cdf(0.975)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(successes, n) == pytest.approx((centre - half, centre + half))
    assert interval([1] * 6 + [0] * 34) == wilson(6, 40)
    assert interval(np.zeros(50))[1] > 0.05


@pytest.mark.parametrize("digits", [0, 9], ids=["few distinct values", "many"])
def test_the_bootstrap_is_that_of_resampled_items(digits):
    values = np.round(np.random.default_rng(4).normal(0, 1, 400), digits)
    error = values.std() / np.sqrt(400)
    expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
    assert bootstrap(values) == interval(values) == bootstrap(np.flip(values)) or digits
    assert bootstrap(values) == bootstrap(values) == pytest.approx(expected, abs=0.15 * error)


def test_the_interval_over_seeds_and_items_is_that_of_the_crossed_bootstrap():
    rng = np.random.default_rng(1)
    for values in ((rng.random((4, 30)) < 0.5) * np.linspace(0.5, 1, 30), rng.random((3, 80))):
        seeds, items = values.shape
        drawn = zip(rng.integers(0, seeds, (RESAMPLES, seeds)), rng.integers(0, items, (RESAMPLES, items)), strict=True)
        means = [values[np.ix_(s, i)].mean() for s, i in drawn]
        assert bootstrap_seeds(values) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_an_interval_needs_one_value_per_item_and_two_seeds():
    for values in ([], [[0.0, 1.0]]):
        with pytest.raises(ValueError, match="one value per item"):
            interval(values)
        with pytest.raises(ValueError, match="seeds ≥ 2"):
            bootstrap_seeds(values)
