"""Records to units, and units to intervals."""

import itertools
import math
import statistics

import numpy as np
import pytest

from reproduction.records import RecordError, read_items, write_items, write_json
from reproduction.report.intervals import bootstrap, bootstrap_seeds, interval, wilson
from reproduction.report.scores import read_scores, score_lines


@pytest.fixture
def evaluated(world):
    """Write one evaluation with the given outcomes (items, samples) and return it as found."""

    def evaluate(benchmark, outcomes, **meta):
        made = world()
        run = made.run("gsm8k_llama3", "lora", benchmarks=[])
        made.evaluate(run, benchmark, np.array(outcomes), **meta)
        return run.evaluations()[0]

    return evaluate


def test_pass_at_k_is_the_unbiased_estimate_of_each_problem(evaluated):
    correct = [0, 1, 4, 10]
    outcomes = [[1] * c + [0] * (10 - c) for c in correct]
    metrics = read_scores(evaluated("humaneval", outcomes))
    assert set(metrics) == {"pass@1", "pass@5", "pass@10"}
    for k in (1, 5, 10):
        # by definition: the share of the k-subsets of ten samples that hold a passing one
        expected = [
            sum(any(row[i] for i in drawn) for drawn in itertools.combinations(range(10), k)) / math.comb(10, k)
            for row in outcomes
        ]
        assert list(metrics[f"pass@{k}"].values.values()) == pytest.approx(expected)


def test_a_unit_is_a_problem_and_never_its_samples(evaluated):
    scores = read_scores(evaluated("humaneval", [[1] * 10, [0] * 10]))["pass@1"]
    assert (len(scores.values), scores.samples, scores.unit) == (2, 10, "problem")


def test_k_beyond_the_number_of_samples_is_no_metric(evaluated):
    assert set(read_scores(evaluated("humaneval", [[1, 0, 0, 0, 0, 1]]))) == {"pass@1", "pass@5"}


def test_both_answers_of_a_question_are_scored(evaluated):
    metrics = read_scores(evaluated("gsm8k", [[1], [0], [0], [1]]))
    assert {name: scores.mean for name, scores in metrics.items()} == {"strict": 0.5, "flexible": 0.5}
    assert metrics["strict"].unit == "question"


def test_an_evaluation_is_told_in_lines_with_interval_and_n(evaluated):
    lines = score_lines(evaluated("humaneval", [[1] * 10, [0] * 10]).folder)
    assert lines[0] == "humaneval only pass@1: 50.0 % [9.5, 90.5], 2 problems x 10 samples"
    assert len(lines) == 3


@pytest.mark.parametrize(("empty", "warned"), [(0, False), (2, False), (3, True)])
def test_empty_answers_are_counted_and_more_than_half_of_them_are_warned_of(empty, warned, evaluated):
    evaluation = evaluated("gsm8k", [[1], [0], [0], [1]])
    _change(evaluation.folder, lambda number: {"raw": " \n" if number < empty else "7"})
    lines = score_lines(evaluation.folder)
    assert [line for line in lines if "answers are empty" in line] == (
        [f"gsm8k only: {empty} of 4 answers are empty"] if empty else []
    )
    assert any(line.startswith("warning: gsm8k only: with more than half") for line in lines) is warned


def test_prompts_without_all_their_worked_examples_are_counted(evaluated):
    evaluation = evaluated("mmlu", [[1], [0], [0], [1]], protocol={"name": "5shot", "num_fewshot": 5})
    _change(evaluation.folder, lambda number: {"shots": 5 - (number == 2)})
    (line,) = [line for line in score_lines(evaluation.folder) if "worked examples" in line]
    assert line == "mmlu 5shot: 1 of 4 prompts leave out worked examples that do not fit the context"


def _change(folder, change) -> None:
    """Put fields into an evaluation's records, by their number."""
    write_items(folder, [record | change(number) for number, record in enumerate(read_items(folder))])


def test_an_evaluation_with_other_items_than_announced_is_refused(evaluated):
    with pytest.raises(RecordError, match=r"holds 3 items, its meta\.json says 4"):
        read_scores(evaluated("gsm8k", [[1], [0], [1]], items=4))


def test_an_evaluation_with_unequal_samples_is_refused(evaluated):
    evaluation = evaluated("humaneval", [[1, 0], [1, 0]])
    write_items(evaluation.folder, read_items(evaluation.folder)[:-1])
    with pytest.raises(RecordError, match=r"\[1, 2\] samples"):
        read_scores(evaluation)


def test_meta_without_a_protocol_is_refused(evaluated):
    evaluation = evaluated("gsm8k", [[1]])
    write_json(evaluation.folder / "meta.json", {"benchmark": "gsm8k", "items": 1})
    with pytest.raises(RecordError, match="lacks protocol"):
        read_scores(evaluation)


def test_wilson_is_the_textbooks_formula():
    n, successes, z = 40, 6, statistics.NormalDist().inv_cdf(0.975)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(successes, n) == pytest.approx((centre - half, centre + half))


def test_zero_of_n_has_an_interval_with_width_for_items_and_for_pass_at_k_alike():
    low, high = interval(np.zeros(50))
    assert (low, high) == wilson(0, 50)
    assert high > 0.05


def test_the_bootstrap_agrees_with_resampling_the_items_one_by_one():
    values = np.random.default_rng(0).choice([0.0, 0.3, 0.7, 1.0], size=60)
    drawn = np.random.default_rng(1).choice(values, size=(10_000, 60)).mean(axis=1)
    assert bootstrap(values) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)
    assert interval(values) == bootstrap(values)


def test_the_bootstrap_repeats_and_does_not_mind_the_order_of_items():
    values = np.random.default_rng(0).random(30)
    assert bootstrap(values) == bootstrap(values) == bootstrap(np.flip(values))
    assert bootstrap(values) != bootstrap(values + 0.01)


def test_seeds_that_disagree_widen_the_interval_and_seeds_that_agree_do_not():
    items = np.random.default_rng(0).integers(0, 2, size=200).astype(float)
    alike = np.array([items] * 3)
    apart = np.array([items, np.zeros(200), np.ones(200)])

    def width(pair):
        return pair[1] - pair[0]

    assert width(bootstrap_seeds(alike)) == pytest.approx(width(bootstrap(items)), rel=0.1)
    assert width(bootstrap_seeds(apart)) > 2 * width(bootstrap(apart.mean(axis=0)))


@pytest.mark.parametrize("values", [[], [[0.0, 1.0]]])
def test_an_interval_needs_one_value_per_item(values):
    with pytest.raises(ValueError, match="one value per item"):
        interval(values)
    with pytest.raises(ValueError, match="seeds ≥ 2"):
        bootstrap_seeds(values)
