"""CUR with random pivots: the errors against an explicit reference, and the cases known in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from reproduction.theory.theorem2 import (
    Contest,
    RareTasks,
    RareWorld,
    Side,
    Theorem2,
    contests,
    cur_errors,
    draw_rare_tasks,
    pivots,
    worst_errors,
)

WORLD = RareWorld(sizes=(4, 3, 2), side=15, shared_rank=2, support=3, spread=0.0)
SETTINGS = Theorem2(
    seed=0,
    draws=3,
    pivot_draws=6,
    pivots=9,
    weights=(1.0,),
    worlds={"base": WORLD},
    contests=(Contest("span", "paper", "total"), Contest("centroid", "uniform", "per_task")),
)


def drawn(weight: float = 2.0, **changes: object) -> RareTasks:
    return draw_rare_tasks(np.random.default_rng(0), replace(WORLD, **changes), weight=weight)


@pytest.mark.parametrize("fitted", [False, True])
def test_errors_are_those_of_c_u_r_written_out(fitted: bool) -> None:
    tasks, rng = drawn(spread=0.5), np.random.default_rng(1)
    source = tasks.matrices.mean(axis=0)
    rows, columns = (pivots(rng, source, 4, by_length=False, draws=3) for _ in range(2))
    found = cur_errors(tasks.matrices, source, columns, rows=rows, fitted=fitted)
    for draw in range(3):
        c, r = source[:, columns[draw]], source[rows[draw]]
        for i, matrix in enumerate(tasks.matrices):
            u = np.linalg.pinv(c) @ (matrix if fitted else source) @ np.linalg.pinv(r)
            assert found[draw, i] == pytest.approx(np.square(matrix - c @ u @ r).sum())


def test_as_many_pivots_as_the_rank_reconstruct_exactly_and_fewer_do_not() -> None:
    tasks = drawn(support=15)
    for count, exact in ((3, True), (2, False)):  # two shared directions and the cluster's own
        side = Side("span", by_length=False, clustered=True, count=count)
        errors = worst_errors(np.random.default_rng(0), tasks, side, draws=5)
        assert (errors < 1e-12).all() == exact


@pytest.mark.parametrize("reading", ["centroid", "span"])
def test_one_cluster_gives_both_sides_equal_errors_and_several_do_not(reading: str) -> None:
    settings = replace(SETTINGS, contests=(Contest(reading, "uniform", "total"),))
    (one,) = contests(settings, drawn(sizes=(9,), spread=0.3), [0]).values()
    (several,) = contests(settings, drawn(spread=0.3), [0]).values()
    assert one["global"] == one["local"] > 0
    assert several["difference"] == several["global"] - several["local"] != 0


def test_global_pivots_that_miss_the_rare_direction_err_by_its_squared_weight() -> None:
    tasks = drawn(weight=3.0)
    source = tasks.matrices.mean(axis=0)
    holds_v = np.flatnonzero(np.abs(source @ tasks.rare) > 1e-9)
    assert len(holds_v) == WORLD.support
    others = np.setdiff1d(np.arange(WORLD.side), holds_v)
    every = np.arange(WORLD.side)[None]
    missed = cur_errors(tasks.matrices, source, every, rows=others[None], fitted=True)[0]
    assert missed[tasks.labels == 2] == pytest.approx(9.0)
    assert missed[tasks.labels != 2] == pytest.approx(0, abs=1e-10)
    assert cur_errors(tasks.matrices, source, every, rows=every, fitted=True)[0] == pytest.approx(0, abs=1e-10)


def test_pivots_are_distinct_and_sampling_by_length_prefers_long_rows() -> None:
    matrix, rng = np.ones((10, 4)), np.random.default_rng(0)
    matrix[7] *= 1e4
    uniform = pivots(rng, matrix, 6, by_length=False, draws=200)
    assert all(len(set(draw)) == 6 for draw in uniform.tolist())
    assert 0.4 < (uniform == 7).any(axis=1).mean() < 0.8
    assert (pivots(rng, matrix, 1, by_length=True, draws=200) == 7).all()


def test_pivots_that_clusters_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10 pivots must be .* a multiple of its 3 clusters"):
        replace(SETTINGS, pivots=10)
