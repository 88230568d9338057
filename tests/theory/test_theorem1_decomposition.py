"""Theorem 1's decompositions where their errors and Δ are known in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from reproduction.theory.theorem1 import (
    READINGS,
    Decomposition,
    Tasks,
    World,
    definition4,
    draw_tasks,
    joint,
    measure,
    sign_range,
)

WORLD = World(sizes=(5, 4, 3), rows=9, columns=8, rank=3, within_rank=3, noise=0.0, correlation=0.0)


def drawn(seed: int = 0, *, separation: float = 2.0, **changes: object) -> Tasks:
    return draw_tasks(np.random.default_rng(seed), replace(WORLD, **changes), separation=separation)


def rank_one(directions: np.ndarray, *, each: int = 4, scale: float = 3.0) -> Tasks:
    """``each`` equal tasks per cluster, W = scale · b a_lᵀ with a unit b: perfectly separated for orthogonal a_l."""
    labels = np.repeat(np.arange(len(directions)), each)
    basis = np.full((5, 1), 5**-0.5)
    return Tasks(basis, scale * directions[labels][:, None, :], np.zeros((len(labels), 5, directions.shape[1])), labels)


@pytest.mark.parametrize("reading", READINGS)
def test_one_cluster_is_the_global_decomposition(reading: str) -> None:
    found = measure(drawn(sizes=(12,), noise=0.4), np.zeros(12, dtype=int), reading)
    assert found["clustered"] == pytest.approx(found["global"])
    assert found["delta"] == pytest.approx(0, abs=1e-12)
    assert measure(drawn(noise=0.4), drawn().labels, reading)["delta"] > 0.1  # and three clusters are not


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("k", [2, 3])
def test_separated_rank_one_clusters_give_the_gap_in_closed_form(reading: str, k: int) -> None:
    tasks = rank_one(np.eye(k))
    found = measure(tasks, tasks.labels, reading)
    assert found["clustered"] == pytest.approx(0, abs=1e-12)
    assert found["global"] == pytest.approx(1 - 1 / k)  # m c² (1 - 1/k) of m c²
    if reading != "definition4":  # whose A_global has another length than the mean of its A_l
        assert found["delta"] == pytest.approx(1 - 1 / k)


def test_definition_4_loses_to_the_global_decomposition_on_two_perfect_clusters_of_opposite_sign() -> None:
    tasks = rank_one(np.array([[1.0, 0], [0, -1.0]]))
    found = measure(tasks, tasks.labels, "definition4")
    assert found["clustered"] == pytest.approx(1)  # the two halves of B cancel
    assert found["global"] == pytest.approx(0.5)
    assert (found["best_signs"], found["worst_signs"]) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    assert measure(tasks, tasks.labels, "joint")["clustered"] == pytest.approx(0, abs=1e-12)
    assert measure(tasks, np.tile([0, 1], 4), "joint")["gap"] == pytest.approx(0, abs=1e-12)  # mixed clusters


def test_the_gap_is_delta_plus_the_dropped_cross_terms() -> None:
    found = measure(drawn(noise=0.8), drawn().labels, "assumed")
    assert found["gap"] == pytest.approx(found["delta"] + found["cross_terms"])
    assert abs(found["cross_terms"]) > 1e-6
    assert measure(drawn(), drawn().labels, "assumed")["gap_minus_delta"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("correlation", [-1.0, 1.0])
def test_the_side_that_the_noise_takes_decides_inequality_18(correlation: float) -> None:
    found = measure(drawn(noise=0.5, correlation=correlation), drawn().labels, "assumed")
    assert found["inequality_18_holds"] == (correlation > 0)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_joint_is_never_above_any_other_decomposition_of_its_form(rank: int) -> None:
    tasks, rng = drawn(noise=0.5), np.random.default_rng(1)
    best = joint(tasks.matrices, tasks.labels, rank)
    least = best.squared_errors(tasks.matrices).sum()
    others = [definition4(tasks.matrices, tasks.labels, rank, scaled=scaled) for scaled in (False, True)]
    for _ in range(50):
        step = 0.05 * rng.normal(size=best.basis.shape)
        others.append(Decomposition(best.basis + step, best.codes, best.labels))
        step = 0.05 * rng.normal(size=best.codes.shape)
        others.append(Decomposition(best.basis, best.codes + step, best.labels))
    assert all(other.squared_errors(tasks.matrices).sum() > least for other in others)


@pytest.mark.parametrize("scaled", [False, True])
def test_definition_4_solves_its_least_squares_problem_for_b(scaled: bool) -> None:
    tasks = drawn(noise=0.5)
    found = definition4(tasks.matrices, tasks.labels, 3, scaled=scaled)
    codes, matrices = np.concatenate(found.codes[found.labels], axis=1), np.concatenate(tasks.matrices, axis=1)
    expected = np.linalg.lstsq(codes.T, matrices.T, rcond=None)[0].T
    np.testing.assert_allclose(found.basis, expected, atol=1e-10)


def test_the_sign_range_is_that_of_trying_every_sign() -> None:
    tasks = drawn(noise=0.5, rank=2, within_rank=2)
    found = definition4(tasks.matrices, tasks.labels, 2)
    errors = []
    for signs in np.ndindex((2,) * 6):
        codes = found.codes * (1 - 2 * np.array(signs).reshape(3, 2, 1))
        basis = np.einsum("ipq,irq->pr", tasks.matrices, codes[tasks.labels]) / len(tasks.labels)
        errors.append(Decomposition(basis, codes, tasks.labels).squared_errors(tasks.matrices).sum())
    assert sign_range(tasks.matrices, found) == pytest.approx((min(errors), max(errors)))
    assert min(errors) < max(errors)


def test_a_single_task_may_lie_nearer_to_the_global_code_while_the_sum_holds() -> None:
    codes = np.array([0.0, 0.0, 3.0, 5.0, 5.0, 5.0])[:, None, None]  # means 1 and 5, global 3: the third task is there
    tasks = Tasks(np.ones((1, 1)), codes, np.zeros((6, 1, 1)), np.repeat([0, 1], 3))
    found = measure(tasks, tasks.labels, "assumed")
    assert found["inequality_21_in_the_sum"]
    assert not found["inequality_21_every_task"]
    assert (found["violations_while_the_sum_holds"], found["tasks_violating_21"]) == (1, pytest.approx(1 / 6))
