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
    run,
    steps,
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


def test_the_worst_task_counts() -> None:
    tasks, side = drawn(spread=0.4), Side("span", by_length=False, clustered=False, count=6)
    source, rng = tasks.matrices.mean(axis=0), np.random.default_rng(0)
    rows, columns = (pivots(rng, each, 6, by_length=False, draws=4) for each in (source, source.T))
    errors = cur_errors(tasks.matrices, source, columns, rows=rows, fitted=True)
    np.testing.assert_allclose(worst_errors(np.random.default_rng(0), tasks, side, draws=4), errors.max(axis=1))
    assert (errors.max(axis=1) > errors.mean(axis=1) + 1e-3).all()


def test_pivots_are_distinct_and_sampling_by_length_prefers_long_rows() -> None:
    matrix, rng = np.ones((10, 4)), np.random.default_rng(0)
    matrix[7] *= 1e4
    uniform = pivots(rng, matrix, 6, by_length=False, draws=200)
    assert all(len(set(draw)) == 6 for draw in uniform.tolist())
    assert 0.4 < (uniform == 7).any(axis=1).mean() < 0.8
    assert (pivots(rng, matrix, 1, by_length=True, draws=200) == 7).all()


def test_the_budget_says_what_a_cluster_may_keep() -> None:
    total = Contest("span", "paper", "total").sides(12, 4)
    assert [side.count for side in total] == [12, 3]
    assert [side.by_length for side in total] == [False, True]
    assert [side.count for side in Contest("span", "length", "per_task").sides(12, 4)] == [12, 12]
    assert [side.reading for side in Contest("own", "uniform", "total").sides(12, 4)] == ["own", "centroid"]


def test_own_rows_err_less_than_the_mean_where_tasks_of_a_cluster_differ() -> None:
    tasks = drawn(spread=0.8)
    own, mean = (
        worst_errors(
            np.random.default_rng(0), tasks, Side(reading, by_length=False, clustered=False, count=15), draws=2
        )
        for reading in ("own", "centroid")
    )
    assert own == pytest.approx(0, abs=1e-10)
    assert (mean > 0.5).all()


def test_a_direction_in_every_row_is_never_missed_and_one_in_a_single_row_often_is() -> None:
    for support, missed in ((15, False), (1, True)):
        record = steps(SETTINGS, drawn(support=support), [0], sampling="uniform")
        assert (record["missed_globally"] > 0) == (record["missed_locally"] > 0) == missed


def test_gamma_bounds_from_below_only_where_all_that_miss_v_err_alike() -> None:
    settings = replace(SETTINGS, pivot_draws=30)
    alike, apart = (steps(settings, drawn(side=30, spread=spread), [0], sampling="uniform") for spread in (0.0, 0.5))
    assert alike["bound_26_holds"]
    assert not apart["bound_26_holds"]
    assert alike["missed_below_gamma"] == 0 < apart["missed_below_gamma"] < 1
    assert alike["definition1_holds"]


def test_curves_follow_their_seed() -> None:
    assert run(SETTINGS) == run(SETTINGS) != run(replace(SETTINGS, seed=1))


def test_pivots_that_clusters_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10 pivots must be .* a multiple of its 3 clusters"):
        replace(SETTINGS, pivots=10)
