"""Theorem 1 (Clustering Reconstruction) measured: Σ‖W*_i - W̃_i‖² ≤ Σ‖W*_i - W̃_i^global‖² - Δ (Eq. 9, 18).

Every error and Δ is a share of Σ‖W*_i‖². One draw is one set of tasks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from reproduction.theory.clusters import Array, Labels, kmeans, means, same_partition
from reproduction.theory.decomposition import (
    Decomposition,
    assumed,
    definition4,
    delta,
    joint,
    mean_code,
    shifts,
    sign_range,
    squared_errors,
)
from reproduction.theory.estimates import ZERO, Point, Record, points
from reproduction.theory.tasks import Tasks, World, draw_tasks

STUDY = "theorem1"
READINGS = ("assumed", "definition4", "joint")


@dataclass(frozen=True)
class Theorem1:
    """Settings: what is drawn, how often, and along which axes.

    ``scenarios``: the worlds of the curves over ``separations``. ``correlations`` at ``correlation_separation`` for
    each of ``correlation_noises``. ``no_cluster_k``: clusters asked for where there are none. ``within_ranks``: r_l.
    The worlds of all but the first are the first scenario's with one thing changed.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    seed: int
    draws: int
    separations: tuple[float, ...]
    scenarios: dict[str, World]
    correlations: tuple[float, ...]
    correlation_separation: float
    correlation_noises: tuple[float, ...]
    no_cluster_k: tuple[int, ...]
    within_ranks: tuple[int, ...]

    @property
    def base(self) -> World:
        """The first scenario's world, which the other studies change."""
        return next(iter(self.scenarios.values()))


def run(settings: Theorem1) -> list[Point]:
    """All curves of Theorem 1. Deterministic by ``settings.seed``."""
    return [
        *over_separation(settings),
        *over_correlation(settings),
        *without_clusters(settings),
        *centroid_ranks(settings),
    ]


def over_separation(settings: Theorem1) -> Iterator[Point]:
    """Errors, gap and Δ of each reading as the clusters move apart, in every scenario."""
    for setting, world in settings.scenarios.items():
        for point, x in enumerate(settings.separations):
            drawn = [
                (tasks, _cluster(tasks, len(world.sizes), settings.seed))
                for tasks in _draws(settings, world, x, point=point)
            ]
            for reading in READINGS:
                records = [measure(tasks, labels, reading) for tasks, labels in drawn]
                yield from points(
                    records, study=STUDY, setting=setting, series=reading, x_name="separation", x=float(x)
                )


def over_correlation(settings: Theorem1) -> Iterator[Point]:
    """The proof's reading as E_i turns from against the clusters' shifts to along them, at a fixed ‖E_i‖."""
    for noise in settings.correlation_noises:
        for point, x in enumerate(settings.correlations):
            world = replace(settings.base, noise=noise, correlation=x)
            drawn = _draws(settings, world, settings.correlation_separation, point=point)
            records = [measure(tasks, tasks.labels, "assumed") for tasks in drawn]
            yield from points(
                records,
                study=STUDY,
                setting=f"correlation at noise {noise:g}",
                series="assumed",
                x_name="correlation",
                x=float(x),
            )


def without_clusters(settings: Theorem1) -> Iterator[Point]:
    """Δ of a k-means partition of exchangeable tasks: there is nothing to find, and k-means always finds it."""
    world = replace(settings.base, sizes=(sum(settings.base.sizes),))
    for k in settings.no_cluster_k:
        records = []
        for tasks in _draws(settings, world, 0.0):
            found = joint(tasks.matrices, _cluster(tasks, k, settings.seed), world.rank)
            shift = delta(found, mean_code(found)) / np.square(tasks.matrices).sum()
            records.append({"delta": float(shift), "delta_is_zero": bool(shift <= ZERO)})
        yield from points(records, study=STUDY, setting="no clusters", series="joint", x_name="clusters", x=float(k))


def centroid_ranks(settings: Theorem1) -> Iterator[Point]:
    """rank(M_l) beside r_l, the largest rank of a difference within a cluster: (30) needs rank(M_l) ≤ r_l."""
    for within in settings.within_ranks:
        world = replace(settings.base, within_rank=within, noise=0.0)
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
        yield from points(
            records, study=STUDY, setting="rank of centroids", series="assumed", x_name="within_rank", x=float(within)
        )


def measure(tasks: Tasks, labels: Labels, reading: str) -> Record:
    """One draw in one reading: errors, gap, Δ, and which of the theorem's statements hold.

    ``labels`` are k-means' (Definition 4 (1)); the proof's reading knows the true ones and uses them. The global
    decomposition is the same reading with one cluster: in `assumed` it shares B, as in (19), elsewhere it has the best
    B of its own. A_global is its code; in `joint`, whose two B differ, the best single code for the clustered B.
    (21) is checked for A_i in the proof's reading, for W*_i elsewhere.
    """
    matrices = tasks.matrices
    used = tasks.labels if reading == "assumed" else labels
    clustered, global_ = (_decompose(tasks, each, reading) for each in (used, _whole(used)))
    common = mean_code(clustered) if reading == "joint" else global_.codes[0]
    total = np.square(matrices).sum()
    own, other = squared_errors(matrices, clustered) / total, squared_errors(matrices, global_) / total
    gap, shift = float(other.sum() - own.sum()), delta(clustered, common) / total
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
        cross = 2 * float((tasks.noise * shifts(clustered, common)).sum()) / total
        record |= {"cross_terms": cross, "cross_terms_size": abs(cross), "cross_terms_vanish": abs(cross) <= ZERO}
        own = np.square(tasks.codes - clustered.codes[used]).sum(axis=(1, 2))
        other = np.square(tasks.codes - common).sum(axis=(1, 2))
    else:
        record["partition_recovered"] = same_partition(used, tasks.labels)
    if reading == "definition4":
        best, worst = (error / total for error in sign_range(matrices, clustered))
        scaled = [definition4(matrices, each, len(common), scaled=True) for each in (used, _whole(used))]
        scaled_gap = float(np.subtract(*(squared_errors(matrices, each).sum() for each in scaled)) / -total)
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


def difference_rank(matrices: Array, labels: Labels) -> int:
    """r_l of Assumption 1 as realised: the largest rank of W*_i - W*_j over all pairs within a cluster (Eq. 6)."""
    first, second = np.triu_indices(len(labels), k=1)
    inside = labels[first] == labels[second]
    return int(np.linalg.matrix_rank(matrices[first[inside]] - matrices[second[inside]]).max(initial=0))


def _decompose(tasks: Tasks, labels: Labels, reading: str) -> Decomposition:
    if reading == "assumed":
        return assumed(tasks, labels)
    return {"definition4": definition4, "joint": joint}[reading](tasks.matrices, labels, tasks.basis.shape[1])


def _whole(labels: Labels) -> Labels:
    return np.zeros_like(labels)


def _draws(settings: Theorem1, world: World, separation: float, *, point: int = 0) -> Iterator[Tasks]:
    """The tasks of every draw; the points of a curve have draws of their own, which the scenarios share."""
    for draw in range(settings.draws):
        yield draw_tasks(np.random.default_rng([settings.seed, point, draw]), world, separation=separation)


def _cluster(tasks: Tasks, k: int, seed: int) -> Labels:
    """Definition 4 (1): k-means on the matrices."""
    vectors = tasks.matrices.reshape(len(tasks.labels), -1)
    return kmeans(vectors, k, rng=np.random.default_rng([seed, k]))
