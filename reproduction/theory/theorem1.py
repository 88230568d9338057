"""Theorem 1 (Clustering Reconstruction) measured: Σ‖W*_i - W̃_i‖² ≤ Σ‖W*_i - W̃_i^global‖² - Δ (Eq. 9, 18).

    tasks            W*_i = B A_i + E_i    W* (m, p, q)   B (p, r)   A (m, r, q)   A_i = A_0 + separation · C_l(i) + D_i
    decomposition    W̃_i = B A_l(i)        A_l (k, r, q), one per cluster;    global: the same with k = 1

The paper does not fix one decomposition. `assumed` follows its proof: B and A_i of Assumption 2 are known, A_l is the
mean of its cluster's A_i (Eq. 19-21). `definition4` follows its definition, `joint` is the best of this form.
Every error and Δ is a share of Σ‖W*_i‖². One draw is one set of tasks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from reproduction.theory.estimates import (
    ZERO,
    Array,
    Labels,
    Point,
    Record,
    Settings,
    kmeans,
    means,
    points,
    rank_one,
    unit,
)

STUDY = "theorem1"
READINGS = ("assumed", "definition4", "joint")


@dataclass(frozen=True)
class World(Settings):
    """Distribution of the task matrices.

    Args:
        sizes: number of tasks of each cluster.
        rows: p.
        columns: q.
        rank: r = r_g of Assumption 2.
        within_rank: r_l of Assumption 1, the rank of differences within a cluster. Up to `rank` they lie in B's span;
            above it they cannot, and are part of E_i.
        noise: √ε, ‖E_i‖_F without that part.
        correlation: cosine between E_i and its cluster's shift B(A_l(i) - A_global); Assumption 2 bounds only ‖E_i‖.
    """

    sizes: tuple[int, ...]
    rows: int
    columns: int
    rank: int
    within_rank: int
    noise: float
    correlation: float


@dataclass(frozen=True)
class Theorem1(Settings):
    """Settings of the study.

    Args:
        seed: seed of every draw.
        draws: sets of tasks per point.
        separations: distances of the clusters, in units of the spread within a cluster.
        scenarios: worlds of the curves over `separations`; the other curves vary the first world.
        correlations: axis of the curves over the correlation.
        correlation_separation: separation of these curves.
        correlation_noises: noise of each of these curves.
        no_cluster_k: numbers of k-means clusters for tasks without clusters.
        within_ranks: r_l of the curve of ranks.
    """

    seed: int
    draws: int
    separations: tuple[float, ...]
    scenarios: dict[str, World]
    correlations: tuple[float, ...]
    correlation_separation: float
    correlation_noises: tuple[float, ...]
    no_cluster_k: tuple[int, ...]
    within_ranks: tuple[int, ...]


class Tasks(NamedTuple):
    """Optimal parameters of m tasks (Eq. 7): `basis` B (p, r), `codes` A_i (m, r, q), `noise` E_i (m, p, q)."""

    basis: Array
    codes: Array
    noise: Array
    labels: Labels

    @property
    def matrices(self) -> Array:
        """W*_i = B A_i + E_i, (m, p, q)."""
        return self.basis @ self.codes + self.noise


class Decomposition(NamedTuple):
    """`basis` B (p, r), `codes` A_l (k, r, q), `labels` l(i) (m,)."""

    basis: Array
    codes: Array
    labels: Labels

    def squared_errors(self, matrices: Array) -> Array:
        """Compute ‖W*_i - B A_l(i)‖²_F of every task (Eq. 16): matrices (m, p, q) → (m,)."""
        return np.square(matrices - (self.basis @ self.codes)[self.labels]).sum(axis=(1, 2))

    def shifts(self, global_code: Array) -> Array:
        """Compute B (A_l(i) - A_global) of every task, (m, p, q); the sum of squares is Δ (below Eq. 18)."""
        return (self.basis @ (self.codes - global_code))[self.labels]

    def delta(self, global_code: Array) -> float:
        """Compute Δ = Σ_l Σ_{i∈C_l} ‖B (A_l(i) - A_global)‖²_F."""
        return float(np.square(self.shifts(global_code)).sum())

    def mean_code(self) -> Array:
        """Return the best single code for this B, (r, q): the mean of A_l(i) over tasks."""
        return self.codes[self.labels].mean(axis=0)


def draw_tasks(rng: np.random.Generator, world: World, *, separation: float) -> Tasks:
    """Draw tasks whose clusters are `separation` away from the common A_0, in units of the spread within a cluster.

    A_0, every cluster's shift C_l and every task's D_i have Frobenius norm 1; B's columns have expected norm 1.
    At separation 0 there are no clusters: the tasks are exchangeable (unless the noise follows the labels).
    """
    p, q, r, w = world.rows, world.columns, world.rank, world.within_rank
    labels = np.repeat(np.arange(len(world.sizes)), world.sizes)
    m = len(labels)
    basis = rng.normal(size=(p, r)) / np.sqrt(p)
    common = unit(rng.normal(size=(1, r, q)))
    shifts = unit(rng.normal(size=(len(world.sizes), r, q)))[labels]
    directions = rank_one(rng, (m, p, q))  # rank one keeps Assumption 1's bound on differences
    factors = rng.normal(size=(m, w, q))
    codes, noise = common + separation * shifts, np.zeros((m, p, q))
    if w <= r:
        codes = codes + unit(np.linalg.qr(rng.normal(size=(r, w)))[0] @ factors)
    else:
        noise = noise + unit(np.linalg.qr(rng.normal(size=(p, w)))[0] @ factors)
    if world.noise:
        c = world.correlation
        towards = unit(basis @ (means(codes, labels)[labels] - codes.mean(axis=0)))
        noise = noise + world.noise * unit(c * towards + np.sqrt(1 - c**2) * directions)
    return Tasks(basis, codes, noise, labels)


def definition4(matrices: Array, labels: Labels, rank: int, *, scaled: bool = False) -> Decomposition:
    """Decompose by Definition 4: A_l from the rank-r truncated SVD of the centroid M_l, then least-squares B (Eq. 15).

    A_l holds the leading right singular vectors of M_l, times their singular values if `scaled` (the definition leaves
    this open). Their signs are arbitrary; here each one's largest entry is positive.
    B = (Σ_l |C_l| M_l A_lᵀ) (Σ_l |C_l| A_l A_lᵀ)⁺. With one cluster B A_1 is the truncated SVD of the mean.
    """
    centroids = means(matrices, labels)
    _, values, vectors = np.linalg.svd(centroids, full_matrices=False)
    codes = vectors[:, :rank]
    largest = np.take_along_axis(codes, np.abs(codes).argmax(axis=2, keepdims=True), axis=2)
    codes = codes * np.where(largest < 0, -1.0, 1.0)
    if scaled:
        codes = values[:, :rank, None] * codes
    sizes = np.bincount(labels)
    moment = np.einsum("l,lpq,lrq->pr", sizes, centroids, codes)
    gram = np.einsum("l,lrq,lsq->rs", sizes, codes, codes)
    return Decomposition(moment @ np.linalg.pinv(gram, hermitian=True), codes, labels)


def sign_range(matrices: Array, found: Decomposition) -> tuple[float, float]:
    """Return the least and greatest Σ ‖W*_i - W̃_i‖² of `definition4` over all 2^{r(k-1)} signs of singular vectors.

    Unscaled, A_l A_lᵀ = I: B = (1/m) Σ_l |C_l| M_l A_lᵀ and the error is Σ ‖W*_i‖² - m ‖B‖²_F. Column j of B depends
    only on the j-th signs, so that 2^{k-1} choices per column are enough.
    """
    weights = np.bincount(found.labels) / len(found.labels)
    parts = np.einsum("l,lpq,lrq->lrp", weights, means(matrices, found.labels), found.codes)
    choices = np.array([(1, *rest) for rest in product((1, -1), repeat=len(parts) - 1)])
    energy = np.square(np.einsum("cl,lrp->crp", choices, parts)).sum(axis=2)
    total, m = np.square(matrices).sum(), len(matrices)
    return float(total - m * energy.max(axis=0).sum()), float(total - m * energy.min(axis=0).sum())


def joint(matrices: Array, labels: Labels, rank: int) -> Decomposition:
    """Return the best shared B and cluster-specific A_l, which minimise Σ ‖W*_i - B A_l(i)‖².

    B holds the r leading left singular vectors of [√|C_1| M_1 … √|C_k| M_k] (Eckart-Young), and A_l = Bᵀ M_l. With one
    cluster it equals `definition4`. It is never worse than the global one, since A_l = A_global is a candidate.
    """
    centroids = means(matrices, labels)
    scaled = centroids * np.sqrt(np.bincount(labels))[:, None, None]
    basis = np.linalg.svd(np.concatenate(scaled, axis=1), full_matrices=False)[0][:, :rank]
    return Decomposition(basis, basis.T @ centroids, labels)


def measure(tasks: Tasks, labels: Labels, reading: str) -> Record:
    """Measure one draw in one reading: errors, gap, Δ, and which of the theorem's statements hold.

    `labels` come from k-means (Definition 4 (1)); `assumed` uses the true ones instead. The global decomposition is the
    same reading with one cluster: in `assumed` with the same B, as in (19), else with its own best B. A_global is its
    code; in `joint`, whose two B differ, it is the best single code for the clustered B. (21) is checked for A_i in
    `assumed`, for W*_i elsewhere.
    """
    matrices, rank = tasks.matrices, tasks.basis.shape[1]
    used = tasks.labels if reading == "assumed" else labels
    whole = np.zeros_like(used)
    if reading == "assumed":
        clustered, global_ = (Decomposition(tasks.basis, means(tasks.codes, each), each) for each in (used, whole))
    else:
        decompose = definition4 if reading == "definition4" else joint
        clustered, global_ = (decompose(matrices, each, rank) for each in (used, whole))
    common = clustered.mean_code() if reading == "joint" else global_.codes[0]
    total = np.square(matrices).sum()
    own, other = (each.squared_errors(matrices) / total for each in (clustered, global_))
    gap, shift = float(other.sum() - own.sum()), clustered.delta(common) / total
    record = {
        "clustered": float(own.sum()),
        "global": float(other.sum()),
        "gap": gap,
        "delta": shift,
        "gap_minus_delta": gap - shift,
        "inequality_18_holds": gap >= shift - ZERO,
        "clustered_not_worse": gap >= -ZERO,
    }
    if reading == "assumed":
        cross = 2 * float((tasks.noise * clustered.shifts(common)).sum()) / total
        record |= {"cross_terms": cross, "cross_terms_size": abs(cross), "cross_terms_vanish": abs(cross) <= ZERO}
        own = np.square(tasks.codes - clustered.codes[used]).sum(axis=(1, 2))
        other = np.square(tasks.codes - common).sum(axis=(1, 2))
    else:
        record["partition_recovered"] = same_partition(used, tasks.labels)
    if reading == "definition4":
        best, worst = (error / total for error in sign_range(matrices, clustered))
        one, all_ = (definition4(matrices, each, rank, scaled=True) for each in (used, whole))
        scaled_gap = float((all_.squared_errors(matrices).sum() - one.squared_errors(matrices).sum()) / total)
        record |= {
            "best_signs": best,
            "worst_signs": worst,
            "signs_do_not_matter": worst - best <= ZERO,
            "best_signs_not_worse": best <= record["global"] + ZERO,
            "scaled_not_worse": scaled_gap >= -ZERO,
        }
    violated, in_the_sum = own > other + ZERO, bool(own.sum() <= other.sum() + ZERO)
    return record | {
        "tasks_violating_21": float(violated.mean()),
        "inequality_21_every_task": not violated.any(),
        "inequality_21_in_the_sum": in_the_sum,
        "violations_while_the_sum_holds": float(violated.sum() * in_the_sum),
    }


def same_partition(one: Labels, other: Labels) -> bool:
    """Whether two labellings (n,) are the same partition up to the names of clusters."""
    pairs = np.unique(np.stack([one, other]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))


def difference_rank(matrices: Array, labels: Labels) -> int:
    """Return the realised r_l of Assumption 1: the largest rank of W*_i - W*_j within a cluster (Eq. 6)."""
    first, second = np.triu_indices(len(labels), k=1)
    inside = labels[first] == labels[second]
    return int(np.linalg.matrix_rank(matrices[first[inside]] - matrices[second[inside]]).max(initial=0))


def run(settings: Theorem1) -> list[Point]:
    """Compute all curves of Theorem 1. Deterministic given `settings.seed`."""
    curves = (over_separation, over_correlation, without_clusters, centroid_ranks)
    return [point for curve in curves for point in curve(settings)]


def over_separation(settings: Theorem1) -> Iterator[Point]:
    """Yield errors, gap and Δ of each reading over the separation, in every scenario."""
    for setting, world in settings.scenarios.items():
        for point, x in enumerate(settings.separations):
            drawn = [(t, _cluster(t, len(world.sizes), settings)) for t in _draws(settings, world, x, point=point)]
            for reading in READINGS:
                records = [measure(tasks, labels, reading) for tasks, labels in drawn]
                yield from points(records, study=STUDY, setting=setting, series=reading, separation=x)


def over_correlation(settings: Theorem1) -> Iterator[Point]:
    """Yield the proof's reading over the correlation of E_i with the clusters' shifts, at fixed ‖E_i‖."""
    for noise in settings.correlation_noises:
        for point, x in enumerate(settings.correlations):
            world = replace(_base(settings), noise=noise, correlation=x)
            drawn = _draws(settings, world, settings.correlation_separation, point=point)
            records = [measure(tasks, tasks.labels, "assumed") for tasks in drawn]
            setting = f"correlation at noise {noise:g}"
            yield from points(records, study=STUDY, setting=setting, series="assumed", correlation=x)


def without_clusters(settings: Theorem1) -> Iterator[Point]:
    """Yield Δ of a k-means partition of exchangeable tasks, which have no clusters."""
    world = replace(_base(settings), sizes=(sum(_base(settings).sizes),))
    for k in settings.no_cluster_k:
        records = []
        for tasks in _draws(settings, world, 0.0):
            found = joint(tasks.matrices, _cluster(tasks, k, settings), world.rank)
            shift = found.delta(found.mean_code()) / np.square(tasks.matrices).sum()
            records.append({"delta": float(shift), "delta_is_zero": bool(shift <= ZERO)})
        yield from points(records, study=STUDY, setting="no clusters", series="joint", clusters=k)


def centroid_ranks(settings: Theorem1) -> Iterator[Point]:
    """Yield rank(M_l) and r_l, the largest rank of a difference within a cluster: (30) needs rank(M_l) ≤ r_l."""
    for within in settings.within_ranks:
        world = replace(_base(settings), within_rank=within, noise=0.0)
        records = []
        for tasks in _draws(settings, world, max(settings.separations)):
            centroids, bound = means(tasks.matrices, tasks.labels), difference_rank(tasks.matrices, tasks.labels)
            energy = np.square(np.linalg.svd(centroids, compute_uv=False))
            rank = int(np.linalg.matrix_rank(centroids).max())
            records.append(
                {
                    "difference_rank": float(bound),
                    "centroid_rank": float(rank),
                    "rank_at_most_r_l": rank <= bound,
                    "truncated_share": float(energy[:, bound:].sum() / energy.sum()),
                }
            )
        yield from points(records, study=STUDY, setting="rank of centroids", series="assumed", within_rank=within)


def _base(settings: Theorem1) -> World:
    return next(iter(settings.scenarios.values()))


def _draws(settings: Theorem1, world: World, separation: float, *, point: int = 0) -> Iterator[Tasks]:
    """Yield the tasks of every draw; points of a curve have separate draws, scenarios share them."""
    for draw in range(settings.draws):
        yield draw_tasks(np.random.default_rng([settings.seed, point, draw]), world, separation=separation)


def _cluster(tasks: Tasks, k: int, settings: Theorem1) -> Labels:
    """Cluster the matrices with k-means, Definition 4 (1)."""
    vectors = tasks.matrices.reshape(len(tasks.labels), -1)
    return kmeans(vectors, k, rng=np.random.default_rng([settings.seed, k]))
