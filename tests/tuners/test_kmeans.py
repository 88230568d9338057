"""Clusters of the torch backend: exact assignments, and objectives as low as the library's."""

import itertools

import numpy as np
import pytest
import torch

from idlora import select_pivots
from idlora.tuners.idlora import assignment, kmeans
from idlora.tuners.idlora.assignment import assign_at_least
from idlora.tuners.idlora.kmeans import cluster_rows, nearest_rows, transfer_rows

KMeansConstrained = pytest.importorskip("k_means_constrained").KMeansConstrained
SimpleMinCostFlow = pytest.importorskip("ortools.graph.python.min_cost_flow").SimpleMinCostFlow


def cost_of(costs, labels):
    return costs[np.arange(len(labels)), labels].sum()


def cheapest_by_trying(costs, minimum):
    rows, k = costs.shape
    every = (np.array(labels) for labels in itertools.product(range(k), repeat=rows))
    return min(cost_of(costs, labels) for labels in every if np.bincount(labels, minlength=k).min() >= minimum)


def cheapest_by_flow(costs, minimum):
    rows, k = costs.shape
    flow = SimpleMinCostFlow()
    flow.add_arcs_with_capacity_and_unit_cost(
        np.repeat(np.arange(rows), k),
        rows + np.tile(np.arange(k), rows),
        np.ones(rows * k, int),
        costs.astype(int).ravel(),
    )
    beyond = np.full(k, rows + k)
    flow.add_arcs_with_capacity_and_unit_cost(rows + np.arange(k), beyond, np.full(k, rows), np.zeros(k, int))
    supplies = np.concatenate([np.ones(rows), np.full(k, -minimum), [k * minimum - rows]]).astype(int)
    flow.set_nodes_supplies(np.arange(rows + k + 1), supplies)
    assert flow.solve() == flow.OPTIMAL
    return flow.optimal_cost()


def draw_costs(rng, rows, k, *, largest):
    """Draw integers, so that sums are exact; often with ties, equal rows, an expensive column, or a row offset."""
    costs = rng.integers(0, int(rng.integers(1, largest)) + 1, (rows, k)).astype(float)
    if rng.random() < 0.3:
        costs = costs[rng.integers(0, max(1, rows // 5), rows)]
    if rng.random() < 0.5:
        costs += rng.integers(0, largest, k)
    if rng.random() < 0.3:
        costs -= rng.integers(0, largest, (rows, 1))
    return costs


@pytest.mark.parametrize("cheapest", [cheapest_by_trying, cheapest_by_flow])
def test_the_assignment_is_the_cheapest_whatever_prices_it_starts_from(cheapest):
    rng, active, small = np.random.default_rng(0), 0, cheapest is cheapest_by_trying
    for trial in range(100):
        k, rows = (int(rng.integers(1, 4)), int(rng.integers(3, 7))) if small else (int(rng.integers(2, 9)), 200)
        minimum = rows // k if trial % 3 == 0 else int(rng.integers(1, rows // k + 1))
        costs = draw_costs(rng, rows, k, largest=8 if small else 10 ** int(rng.integers(1, 6)))
        expected = cheapest(costs, minimum)
        cold, prices = assign_at_least(costs, minimum)
        for start in (None, prices, rng.integers(0, 1000, k).astype(float)):
            labels, _ = assign_at_least(costs, minimum, start)
            assert np.bincount(labels, minlength=k).min() >= minimum
            assert cost_of(costs, labels) == expected
        assert np.array_equal(assign_at_least(costs, minimum)[0], cold)
        active += np.bincount(costs.argmin(axis=1), minlength=k).min() < minimum
    assert active > 30


def test_a_second_ascent_shortens_the_work_and_changes_no_assignment_ties_included(monkeypatch):
    rng, tied = np.random.default_rng(7), 0
    for _ in range(60):
        rows, k = 200, int(rng.integers(2, 6))
        costs = draw_costs(rng, rows, k, largest=10 ** int(rng.integers(1, 6)))
        minimum, prices = int(rng.integers(1, rows // k + 1)), rng.integers(1, 1000, k).astype(float)
        found = []
        for many, single in ((rows * k, None), (0, None), (0, lambda *_: True)):
            with monkeypatch.context() as patched:
                patched.setattr(assignment, "MANY_LEFT", many)
                if single:
                    patched.setattr(assignment, "_is_only_optimum", single)
                found.append(assign_at_least(costs, minimum, prices))
        assert np.array_equal(found[0][0], found[1][0])
        assert np.array_equal(found[0][1], found[1][1])
        tied += not np.array_equal(found[0][0], found[2][0])
    assert tied > 5  # so often the check of uniqueness was needed


def test_an_assignment_is_the_only_optimum_exactly_where_no_other_is_as_cheap():
    rng, answers = np.random.default_rng(8), []
    for _ in range(150):
        k, rows = int(rng.integers(1, 4)), int(rng.integers(3, 7))
        minimum = int(rng.integers(1, rows // k + 1))
        costs = draw_costs(rng, rows, k, largest=20)
        labels, _ = assign_at_least(costs, minimum)
        answers.append(assignment._is_only_optimum(costs.T.astype(int), minimum, labels))
        every = (np.array(each) for each in itertools.product(range(k), repeat=rows))
        best = cost_of(costs, labels)
        equal = [
            each for each in every if np.bincount(each, minlength=k).min() >= minimum and cost_of(costs, each) == best
        ]
        assert answers[-1] == (len(equal) == 1)
    assert 30 < sum(answers) < 120


def test_where_the_bound_is_slack_every_row_goes_to_its_cheapest_cluster_the_first_of_equals():
    costs = np.random.default_rng(2).integers(0, 4, (200, 3)).astype(float)
    labels, prices = assign_at_least(costs, 5)
    assert np.array_equal(labels, costs.argmin(axis=1))
    assert not prices.any()


def objective(rows, labels):
    rows = rows.astype(np.float64)
    return sum(np.square(rows[labels == i] - rows[labels == i].mean(axis=0)).sum() for i in np.unique(labels))


def test_transfers_gain_what_they_say_keep_the_bound_and_end_where_no_single_row_would_gain():
    rng = np.random.default_rng(3)
    gains = []
    for _ in range(40):
        n, k = int(rng.integers(12, 30)), int(rng.integers(2, 5))
        minimum = int(rng.integers(1, n // k))
        rows, labels = rng.standard_normal((n, int(rng.integers(1, 20)))), rng.permutation(np.arange(n) % k)
        means = np.stack([rows[labels == i].mean(axis=0) for i in range(k)])
        moved, gain = transfer_rows(
            np.square(rows[:, None] - means).sum(axis=2),
            np.square(rows[:, None] - rows).sum(axis=2),
            labels,
            sizes=np.bincount(labels, minlength=k),
            minimum=minimum,
        )
        sizes = np.bincount(moved, minlength=k)
        assert sizes.min() >= minimum
        assert objective(rows, labels) - objective(rows, moved) == pytest.approx(gain, abs=1e-9)
        gains.append(gain)
        for row, cluster in itertools.product(range(n), range(k)):
            if cluster != moved[row] and sizes[moved[row]] > minimum:
                other = moved.copy()
                other[row] = cluster
                assert objective(rows, other) > objective(rows, moved) * (1 - 1e-6)
    assert min(gains) >= 0
    assert max(gains) > 0


def draw_rows(kind, rng):
    n, columns, k = int(rng.integers(128, 400)), int(rng.choice([64, 128])), int(rng.integers(2, 7))
    if kind == "blobs":
        count = int(rng.integers(2, 12))
        centres = 10 ** rng.uniform(-1, 0.6) * rng.standard_normal((count, columns))
        rows = rng.standard_normal((n, columns)) + centres[rng.choice(count, n, p=rng.dirichlet(np.full(count, 0.7)))]
    elif kind == "duplicates":
        rows = rng.standard_normal((n // int(rng.integers(2, 10)), columns))
        rows = rows[rng.integers(0, len(rows), n)]
    else:
        rows = rng.standard_normal((n, columns))
        if kind == "outlier":
            rows[rng.integers(n)] *= 10 ** rng.uniform(3, 4)
        elif kind == "uneven":
            rows *= np.exp(0.7 * rng.standard_normal((n, 1)))
    r = n // k if rng.random() < 0.2 else int(rng.integers(1, n // k + 1))
    rows = (rows / rows.std()).astype(np.float32)  # the library rounds distances to 1/1000
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows, rows[rng.choice(first, k, replace=False)], r


@pytest.mark.parametrize("kind", ["gaussian", "blobs", "duplicates", "outlier", "uneven"])
def test_from_the_same_centroids_the_objective_is_never_worse_than_the_library_s(kind):
    rng = np.random.default_rng([4, *kind.encode()])
    ratios = []
    for _ in range(8):
        rows, start, r = draw_rows(kind, rng)
        k = len(start)
        library = KMeansConstrained(k, size_min=r, init=start.copy(), n_init=1, max_iter=100).fit(rows)
        ours = cluster_rows(torch.from_numpy(rows), k, r, initial=torch.from_numpy(start))
        labels = ours.labels.numpy()
        assert np.bincount(labels, minlength=k).min() >= r
        assert ours.objective == pytest.approx(objective(rows, labels), rel=1e-4, abs=1e-3)
        slack = 1e-9 * np.square(rows.astype(np.float64)).sum()
        ratios.append((objective(rows, labels) + slack) / (objective(rows, library.labels_) + slack))
    assert max(ratios) <= 1.001
    assert np.mean(ratios) <= 1


@pytest.mark.parametrize("kind", ["gaussian", "blobs", "uneven"])
def test_the_clusters_are_the_best_assignment_to_their_means(kind):
    rows, start, r = draw_rows(kind, np.random.default_rng(5))
    found = cluster_rows(torch.from_numpy(rows), len(start), r)
    labels = found.labels.numpy()
    means = np.stack([rows[labels == i].mean(axis=0, dtype=np.float64) for i in range(len(start))])
    assert found.centroids.numpy() == pytest.approx(means, abs=1e-5)
    costs = np.square(rows[:, None] - means).sum(axis=2)
    assert cost_of(costs, labels) == pytest.approx(cost_of(costs, assign_at_least(costs, r)[0]), rel=1e-6)


def test_equal_rows_are_taken_in_their_order_and_more_starts_are_never_worse():
    rows = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).repeat(8, 1)
    found = cluster_rows(rows, 3, 4)
    for cluster, picked in enumerate(nearest_rows(rows, found, 8)):
        members = (found.labels == cluster).nonzero().flatten()
        distances = (rows[members].double() - rows[members].double().mean(0)).norm(dim=1).round(decimals=5)
        assert picked.tolist() == members[distances.argsort(stable=True)][:8].tolist()
    blobs = torch.from_numpy(draw_rows("blobs", np.random.default_rng(6))[0])
    objectives = [cluster_rows(blobs, 6, 4, n_init=starts).objective for starts in (1, 2, 5, 10)]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[0] > objectives[-1]


@pytest.mark.parametrize("kind", ["gaussian", "blobs", "duplicates", "uneven"])
def test_iterations_that_run_ahead_of_their_check_change_nothing(kind, monkeypatch):
    rng = np.random.default_rng([9, *kind.encode()])
    for max_iter in (1, 2, 3, 4, 5, 7, 100, 100, 100):
        rows, start, r = draw_rows(kind, rng)
        found = []
        for ahead in (1, 4):
            monkeypatch.setattr(kmeans, "LOOK_AHEAD", {"cpu": ahead})
            initial = torch.from_numpy(start)
            found.append(cluster_rows(torch.from_numpy(rows), len(start), r, initial=initial, max_iter=max_iter))
        assert torch.equal(found[0].labels, found[1].labels)
        assert torch.equal(found[0].centroids, found[1].centroids)


def test_neither_an_offset_of_all_rows_nor_the_process_settings_for_products_change_anything():
    weight = torch.randn(300, 64, generator=torch.Generator().manual_seed(9)).bfloat16().float()
    expected = select_pivots(weight, 4, 20)
    assert torch.equal(select_pivots(weight + 256, 4, 20), expected)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(select_pivots(weight, 4, 20), expected)
            assert (weight @ weight.T).dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
