"""Rows to clusters at the least cost, where every cluster must get r of them: a transport problem with k prices.

    min  Σ_n c[n, a(n)]    subject to  |{n : a(n) = i}| ≥ r for every i = 1 … k
    max  Σ_n min_i (c[n, i] − λ_i) + r Σ_i λ_i    over prices λ ≥ 0                      (its dual)

An assignment that sends every row to a cluster of least c − λ is the cheapest one with its own cluster sizes; where
also every size is at least r, and exactly r wherever λ_i > 0, it is optimal (complementary slackness). So prices are
sought first, one after another, each in closed form (coordinate ascent on the dual, which may stop short of the
optimum); whatever is then left over is moved along shortest paths between the k clusters, as in successive shortest
paths for minimum-cost flow (Ahuja, Magnanti & Orlin, Network Flows, §9.7). Any prices are a valid start, so those of
an earlier, similar problem save work and cost no exactness.

Costs are rounded to integers of 51 bits first. Everything after that is exact: ties are ties, no cycle of rounding
errors has a negative length, and the same input gives the same assignment everywhere.
"""

import heapq
from itertools import pairwise

import numpy as np

SWEEPS = 10  # of coordinate ascent at most; leftovers cost a path each, some 30 µs
BITS = 50


def assign_at_least(costs: np.ndarray, minimum: int, prices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest assignment of n rows to k clusters with at least r rows each.

    Args:
        costs: c, shape (n, k), finite floats; of any sign, for a constant added to a row changes nothing.
        minimum: r ≥ 1, with k·r ≤ n.
        prices: λ to start from, shape (k,), in units of the costs; the result is as cheap with any.

    Returns:
        The cluster of every row, int64 (n,), and prices, float64 (k,), for a next call. Of assignments that cost the
        same one is returned, always the same for the same arguments.

    Raises:
        ValueError: r below 1, or fewer than k·r rows.

    Leaves out upper bounds on sizes and weights on rows. Costs closer to each other than 2⁻⁵⁰ of the largest (after the
    least of each row is taken off) count as equal; float32 distances are coarser.
    """
    rows, clusters = costs.shape
    if minimum < 1:
        raise ValueError(f"every cluster must get at least one row, not {minimum}")
    if clusters * minimum > rows:
        raise ValueError(f"cannot give {clusters} clusters {minimum} rows each from {rows} rows")
    columns = np.array(costs.T, dtype=np.float64, order="C")
    columns -= columns.min(axis=0)
    quantum = 2.0 ** (np.frexp(columns.max(initial=0.0))[1] - BITS)
    columns = np.rint(columns / quantum).astype(np.int64)
    levels = np.zeros(clusters, dtype=np.int64)
    if prices is not None:
        levels[:] = np.rint(np.clip(prices / quantum, 0, 2.0**BITS))
    labels = _ascend(columns, minimum, levels)
    _repair(columns, minimum, labels, levels=levels)
    return labels, levels * quantum


def _ascend(columns: np.ndarray, minimum: int, levels: np.ndarray) -> np.ndarray:
    """Improves prices in place until no unit is left over, or no more is gained; the labels of least c − λ."""
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for sweep in range(SWEEPS + 1):
        reduced = columns - levels[:, None]
        labels = reduced.argmin(axis=0)
        excess, _ = _imbalance(labels, minimum, levels)
        left = int(np.abs(excess).sum())
        if best is not None and left >= best[0] and sweep > 2:
            break
        if best is None or left < best[0]:
            best = (left, labels, levels.copy())
        if left == 0 or sweep == SWEEPS:
            break
        for cluster in range(len(levels)):
            others = np.delete(reduced, cluster, axis=0).min(axis=0) if len(levels) > 1 else 0
            # A price of `threshold` is where a row is as cheap here as elsewhere.
            thresholds = columns[cluster] - others
            wanted = np.partition(thresholds, [minimum - 1, min(minimum, len(thresholds) - 1)])
            low, high = int(wanted[minimum - 1]), int(wanted[min(minimum, len(thresholds) - 1)])
            levels[cluster] = 0 if low <= 0 else (low + high) // 2
            reduced[cluster] = columns[cluster] - levels[cluster]
    _, labels, levels[:] = best
    return labels


def _imbalance(labels: np.ndarray, minimum: int, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how many rows each cluster misses complementary slackness, and the rows beyond r where the price is zero."""
    beyond = np.bincount(labels, minlength=len(levels)) - minimum
    spare = np.where(levels == 0, np.maximum(beyond, 0), 0)
    return beyond - spare, spare


def _repair(columns: np.ndarray, minimum: int, labels: np.ndarray, *, levels: np.ndarray) -> None:
    """Moves rows between clusters along shortest paths, in place, until the labels are feasible and optimal.

    Nodes 0 … k−1 are the clusters, joined by the cheapest row that can move from one to the other. Node k stands for
    rows beyond r: a cluster may always keep one more of them, and gives one up only if it has one.
    """
    clusters = len(levels)
    excess, spare = (values.tolist() for values in _imbalance(labels, minimum, levels))
    excess.append(-sum(excess))
    spare.append(0)
    left = sum(amount for amount in excess if amount > 0)
    if left == 0:
        return
    moves = _Moves(columns, labels, left)
    while left:
        path = _shortest_path(moves, excess, spare)
        units = min(excess[path[0]], -excess[path[-1]])
        for source, target in pairwise(path):
            if source == clusters:
                units = min(units, spare[target])
            elif target != clusters:
                units = min(units, moves.equals(source, target, units))
        moving = [
            (target, moves.take(source, target, units))
            for source, target in pairwise(path)
            if clusters not in (source, target)
        ]
        for target, rows in moving:
            moves.put(target, rows)
        for source, target in pairwise(path):
            if source == clusters:
                spare[target] -= units
            elif target == clusters:
                spare[source] += units
        excess[path[0]] -= units
        excess[path[-1]] += units
        left -= units


class _Moves:
    """What it costs to move the cheapest row from one cluster to another: a heap for each pair, cleaned when read.

    At most `left` rows will ever leave a cluster that were in it from the start, so each heap begins with that many.
    """

    def __init__(self, columns: np.ndarray, labels: np.ndarray, left: int):
        self.columns, self.labels = columns, labels
        self.clusters = len(columns)
        self.heaps: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for source in range(self.clusters):
            members = np.flatnonzero(labels == source)
            here = columns[source, members]
            for target in range(self.clusters):
                if target == source:
                    continue
                costs, rows = columns[target, members] - here, members
                if len(rows) > left:
                    # Of equal costs the first rows: the choice must not depend on how numpy partitions.
                    bound = np.partition(costs, left - 1)[left - 1]
                    below, equal = np.flatnonzero(costs < bound), np.flatnonzero(costs == bound)
                    kept = np.concatenate([below, equal[: left - len(below)]])
                    costs, rows = costs[kept], rows[kept]
                self.heaps[source, target] = heap = list(zip(costs.tolist(), rows.tolist(), strict=True))
                heapq.heapify(heap)

    def cost(self, source: int, target: int) -> int | None:
        """Of the cheapest row; None where no row is left."""
        heap = self.heaps[source, target]
        while heap and self.labels[heap[0][1]] != source:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def equals(self, source: int, target: int, limit: int) -> int:
        """How many rows, up to a limit, can move at the cost of the cheapest."""
        rows = self._pop(source, target, limit)
        for entry in rows:
            heapq.heappush(self.heaps[source, target], entry)
        return len(rows)

    def take(self, source: int, target: int, units: int) -> list[int]:
        return [row for _, row in self._pop(source, target, units)]

    def _pop(self, source: int, target: int, limit: int) -> list[tuple[int, int]]:
        heap, found, cost = self.heaps[source, target], [], self.cost(source, target)
        while len(found) < limit and cost is not None and self.cost(source, target) == cost:
            entry = heapq.heappop(heap)
            if not found or found[-1] != entry:  # a row that left and came back stands there twice
                found.append(entry)
        return found

    def put(self, cluster: int, rows: list[int]) -> None:
        for row in rows:
            self.labels[row] = cluster
            own = int(self.columns[cluster, row])
            for target in range(self.clusters):
                if target != cluster:
                    heapq.heappush(self.heaps[cluster, target], (int(self.columns[target, row]) - own, row))


def _shortest_path(moves: _Moves, excess: list[int], spare: list[int]) -> list[int]:
    """Nodes of a cheapest path from one with too much to one with too little (Bellman-Ford: k + 1 nodes)."""
    nodes = len(excess)
    last = nodes - 1
    edges = [(i, last, 0) for i in range(last)] + [(last, i, 0) for i in range(last) if spare[i] > 0]
    for source, target in moves.heaps:
        cost = moves.cost(source, target)
        if cost is not None:
            edges.append((source, target, cost))
    length: list[float] = [0 if amount > 0 else float("inf") for amount in excess]
    before = [-1] * nodes
    changed = True
    while changed:
        changed = False
        for source, target, cost in edges:
            if length[source] + cost < length[target]:
                length[target], before[target], changed = length[source] + cost, source, True
    node = min((node for node in range(nodes) if excess[node] < 0), key=lambda node: length[node])
    path = [node]
    while before[path[0]] >= 0:
        path.insert(0, before[path[0]])
    return path
