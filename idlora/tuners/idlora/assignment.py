"""Assignment of rows to clusters at the least cost with at least r rows a cluster: a transport problem with k prices.

    min  Σ_n c[n, a(n)]    subject to  |{n : a(n) = i}| ≥ r for every i = 1 … k
    max  Σ_n min_i (c[n, i] − λ_i) + r Σ_i λ_i    over prices λ ≥ 0                      (its dual)

An assignment that sends every row to a cluster of least c − λ is the cheapest one with its own cluster sizes. It is
optimal if every size is at least r, and exactly r wherever λ_i > 0 (complementary slackness). Coordinate ascent on the
dual finds prices first. It may stop short of the optimum; the few remaining rows then move along shortest paths between
the k clusters, as in successive shortest paths for minimum-cost flow (Ahuja, Magnanti & Orlin, Network Flows, §9.7).
Any prices are a valid start; those of an earlier, similar problem may save work.

Costs are first rounded to integers of 51 bits. All later steps are exact: ties are ties, no cycle has a negative
length, and the same input gives the same assignment on every machine.
"""

import heapq
from itertools import pairwise

import numpy as np

MAX_SWEEPS = 10  # of coordinate ascent
MANY_LEFT = 50  # rows left over by an ascent, above which one from prices of 0 is tried
BITS = 50


def assign_at_least(costs: np.ndarray, minimum: int, prices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute the cheapest assignment of n rows to k clusters with at least r rows each.

    Costs count as equal if they differ by less than 2⁻⁵⁰ of the largest cost, after subtracting each row's minimum.

    Args:
        costs: c, shape (n, k), finite floats of any sign.
        minimum: r ≥ 1, with k·r ≤ n.
        prices: initial λ, shape (k,), in units of the costs; any λ gives an equally cheap result.

    Returns:
        The cluster of every row, int64 (n,), and prices, float64 (k,), for a later call.
    """
    columns = np.array(costs.T, dtype=np.float64, order="C")
    columns -= columns.min(axis=0)
    quantum = 2.0 ** (np.frexp(columns.max(initial=0.0))[1] - BITS)
    columns = np.rint(columns / quantum).astype(np.int64)
    levels = np.zeros(len(columns), dtype=np.int64)
    if prices is not None:
        levels[:] = np.rint(np.clip(prices / quantum, 0, 2.0**BITS))
    labels = _ascend(columns, minimum, levels)
    if prices is not None and np.abs(_excess(labels, minimum, levels)).sum() > MANY_LEFT:
        # Prices that are all positive leave every spare row over, and prices of 0 are a better start. If several
        # assignments are cheapest, the start decides which is found, and that must not depend on this shortcut.
        fresh = np.zeros_like(levels)
        found = _ascend(columns, minimum, fresh)
        _repair(columns, minimum, found, levels=fresh)
        if _is_only_optimum(columns, minimum, found):
            return found, levels * quantum
    _repair(columns, minimum, labels, levels=levels)
    return labels, levels * quantum


def _ascend(columns: np.ndarray, minimum: int, levels: np.ndarray) -> np.ndarray:
    """Improve prices in place until no row is left over or progress stops; return the labels of least c − λ."""
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for sweep in range(MAX_SWEEPS + 1):
        reduced = columns - levels[:, None]
        labels = reduced.argmin(axis=0)
        left = int(np.abs(_excess(labels, minimum, levels)).sum())
        if best is not None and left >= best[0] and sweep > 2:
            break
        if best is None or left < best[0]:
            best = (left, labels, levels.copy())
        if left == 0 or sweep == MAX_SWEEPS:
            break
        for cluster in range(len(levels)):
            others = np.delete(reduced, cluster, axis=0).min(axis=0) if len(levels) > 1 else 0
            # The price at which each row costs the same here as in its cheapest other cluster.
            thresholds = columns[cluster] - others
            wanted = np.partition(thresholds, [minimum - 1, min(minimum, len(thresholds) - 1)])
            low, high = int(wanted[minimum - 1]), int(wanted[min(minimum, len(thresholds) - 1)])
            levels[cluster] = 0 if low <= 0 else (low + high) // 2
            reduced[cluster] = columns[cluster] - levels[cluster]
    _, labels, levels[:] = best
    return labels


def _excess(labels: np.ndarray, minimum: int, levels: np.ndarray) -> np.ndarray:
    """Rows by which each cluster violates complementary slackness; more than r rows are allowed at price 0."""
    beyond = np.bincount(labels, minlength=len(levels)) - minimum
    return np.where(levels == 0, np.minimum(beyond, 0), beyond)


def _repair(columns: np.ndarray, minimum: int, labels: np.ndarray, *, levels: np.ndarray) -> None:
    """Move rows along shortest paths, one path for each row left over, in place, until the labels are optimal.

    Nodes 0 … k−1 are the clusters; the cost of an edge is that of the cheapest row that can move along it. Node k holds
    the rows beyond r: every cluster can take one more of them, and only a cluster that has one can give it up.
    """
    clusters = len(levels)
    sizes, excess = np.bincount(labels, minlength=clusters), _excess(labels, minimum, levels).tolist()
    spare = (sizes - minimum - excess).tolist()
    excess.append(-sum(excess))
    left = sum(amount for amount in excess if amount > 0)
    moves = {}
    for source in range(clusters if left else 0):
        members = np.flatnonzero(labels == source)
        own = columns[source, members]
        for target in range(clusters):
            if target != source:
                moves[source, target] = _cheapest(columns[target, members] - own, members, left)
    for _ in range(left):
        edges = [(i, clusters, 0) for i in range(clusters)] + [(clusters, i, 0) for i in range(clusters) if spare[i]]
        for (source, target), heap in moves.items():
            while heap and labels[heap[0][1]] != source:
                heapq.heappop(heap)
            if heap:
                edges.append((source, target, heap[0][0]))
        path = _shortest_path(edges, excess)
        rows = [(moves[step][0][1], step[1]) for step in pairwise(path) if step in moves]
        for row, cluster in rows:
            labels[row] = cluster
            for target in range(clusters):
                if target != cluster:
                    heapq.heappush(moves[cluster, target], (int(columns[target, row] - columns[cluster, row]), row))
        for source, target in pairwise(path):
            if source == clusters:
                spare[target] -= 1
            elif target == clusters:
                spare[source] += 1
        excess[path[0]] -= 1
        excess[path[-1]] += 1


def _is_only_optimum(columns: np.ndarray, minimum: int, labels: np.ndarray) -> bool:
    """Return whether every other assignment within the bound costs more.

    One that does not differs by moves along a cycle of length ≤ 0, or along a path of length ≤ 0 from a cluster of more
    than r rows.
    """
    sizes = np.bincount(labels, minlength=len(columns))
    lengths = np.full((len(columns), len(columns)), 2**60)
    for source in range(len(columns)):
        members = columns[:, labels == source]
        lengths[source] = (members - members[source]).min(axis=1)
    np.fill_diagonal(lengths, 2**60)
    for node in range(len(columns)):  # Floyd & Warshall; the diagonal becomes the shortest cycles
        lengths = np.minimum(lengths, lengths[:, [node]] + lengths[node])
    return bool((lengths.diagonal() > 0).all() and (lengths[sizes > minimum] > 0).all())


def _cheapest(costs: np.ndarray, rows: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return a heap of (cost, row) with at least the `count` cheapest rows; no more than `count` rows ever leave."""
    if len(rows) > count:
        cheapest = costs <= np.partition(costs, count - 1)[count - 1]
        costs, rows = costs[cheapest], rows[cheapest]
    heap = list(zip(costs.tolist(), rows.tolist(), strict=True))
    heapq.heapify(heap)
    return heap


def _shortest_path(edges: list[tuple[int, int, int]], excess: list[int]) -> list[int]:
    """Return the nodes of a cheapest path from a node with excess > 0 to one with excess < 0 (Bellman-Ford)."""
    length: list[float] = [0 if amount > 0 else float("inf") for amount in excess]
    before, changed = [-1] * len(excess), True
    while changed:
        changed = False
        for source, target, cost in edges:
            if length[source] + cost < length[target]:
                length[target], before[target], changed = length[source] + cost, source, True
    path = [min((node for node, amount in enumerate(excess) if amount < 0), key=lambda node: length[node])]
    while before[path[0]] >= 0:
        path.insert(0, before[path[0]])
    return path
