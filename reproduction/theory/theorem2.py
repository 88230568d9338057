"""Theorem 2 (Cluster-Pivot Stability) measured: E_P max_i ‖W*_i - W̃_i^CUR‖² ≥ E_Pl max_i ‖W*_i - W̃_i‖² (Eq. 10, 22).

    W*_i = X V_0ᵀ + w_l z_l v_lᵀ + N_i        X V_0ᵀ shared, of rank r_0 and norm 1;  v_l the cluster's own direction
    W̃ = C U R,   U = C⁺ W R⁺                  C columns and R rows at the pivots (Definitions 1 and 6)

The last cluster is the rare one: few tasks, its direction in few rows. The paper does not specify the source of W̃_i,
the sampling of local pivots or the number of pivots per side, so these are options of a `Contest`. Expectations are
over draws of pivots, intervals over worlds.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from reproduction.theory.estimates import (
    ZERO,
    Array,
    Labels,
    Point,
    Record,
    Settings,
    means,
    points,
    rank_one,
    unit,
)

STUDY = "theorem2"


@dataclass(frozen=True)
class RareWorld(Settings):
    """Distribution of tasks with a rare direction.

    Args:
        sizes: number of tasks of each cluster, the rare one last.
        side: rows and columns of W*.
        shared_rank: r_0.
        support: number of rows that contain the rare direction.
        spread: ‖N_i‖_F of the task-specific part, which has rank one.
    """

    sizes: tuple[int, ...]
    side: int
    shared_rank: int
    support: int
    spread: float


class Side(NamedTuple):
    """One side of a contest: `count` rows and columns for each cluster, or for all tasks together."""

    reading: str
    by_length: bool
    clustered: bool
    count: int


@dataclass(frozen=True)
class Contest(Settings):
    """A comparison of global with cluster-local CUR.

    Args:
        reading: definition of W̃_i. `centroid`: CUR of the mean matrix of all tasks or of the cluster (step 3 of the
            proof). `span`: C and R from that mean, U fitted to each task. `own`: as `centroid`, but the global side
            takes rows and columns of W*_i itself, at the same positions for all tasks (23).
        sampling: distribution of pivots. `uniform`; `length`: by squared norm; `paper`: uniform globally (below 23), by
            squared norm within clusters (24).
        budget: number of rows and columns per cluster. `total`: the global number divided among the clusters, so that
            both sides keep the same total. `per_task`: the global number for each, k times the total.
    """

    reading: Literal["centroid", "span", "own"]
    sampling: Literal["paper", "uniform", "length"]
    budget: Literal["total", "per_task"]

    def __str__(self) -> str:
        return f"{self.reading}, {self.sampling} sampling, {self.budget.replace('_', ' ')} budget"

    def sides(self, count: int, clusters: int) -> tuple[Side, Side]:
        """Return the global side with `count` pivots and the local side with the budget per cluster."""
        local = "centroid" if self.reading == "own" else self.reading
        share = count // clusters if self.budget == "total" else count
        return (
            Side(self.reading, self.sampling == "length", clustered=False, count=count),
            Side(local, self.sampling != "uniform", clustered=True, count=share),
        )


@dataclass(frozen=True)
class Theorem2(Settings):
    """Settings of the study.

    Args:
        seed: seed of every draw.
        draws: worlds per point.
        pivot_draws: sets of pivots per world, for the expectation.
        pivots: number of rows, and of columns, of the global side; a multiple of the number of clusters.
        weights: weights of the rare direction, the curves' axis; the other clusters' directions have weight 1.
        worlds: worlds by name.
        contests: contests run in each world.
    """

    seed: int
    draws: int
    pivot_draws: int
    pivots: int
    weights: tuple[float, ...]
    worlds: dict[str, RareWorld]
    contests: tuple[Contest, ...]

    def __post_init__(self) -> None:
        for name, world in self.worlds.items():
            if self.pivots % len(world.sizes) or self.pivots > world.side:
                raise ValueError(
                    f"{self.pivots} pivots must be at most the {world.side} rows of {name!r} and a multiple of its "
                    f"{len(world.sizes)} clusters, which share them"
                )


class RareTasks(NamedTuple):
    """`matrices` W* (m, p, p), `labels` (m,), `rare` the direction v (p,) of the last cluster."""

    matrices: Array
    labels: Labels
    rare: Array


def draw_rare_tasks(rng: np.random.Generator, world: RareWorld, *, weight: float) -> RareTasks:
    """Draw tasks; the last cluster's direction has weight `weight`, the others' 1 (‖w_l z_l v_lᵀ‖_F = w_l)."""
    p, k = world.side, len(world.sizes)
    labels = np.repeat(np.arange(k), world.sizes)
    shared, own = np.split(np.linalg.qr(rng.normal(size=(p, world.shared_rank + k)))[0], [world.shared_rank], axis=1)
    common = unit(rng.normal(size=(p, world.shared_rank)) @ shared.T)
    profiles = rng.normal(size=(k, p, 1))
    profiles[-1, rng.permutation(p)[world.support :]] = 0
    weights = np.array([1.0] * (k - 1) + [weight])
    directions = weights[:, None, None] * unit(profiles * own.T[:, None, :])
    noise = world.spread * rank_one(rng, (len(labels), p, p))
    return RareTasks(common + directions[labels] + noise, labels, own[:, -1])


def pivots(rng: np.random.Generator, matrix: Array, count: int, *, by_length: bool, draws: int) -> np.ndarray:
    """Draw row indices (draws, count) without replacement: uniform, or by squared norm (Gumbel top-k)."""
    scores = rng.gumbel(size=(draws, len(matrix)))
    if by_length:
        scores = scores + np.log(np.maximum(np.square(matrix).sum(axis=1), np.finfo(float).tiny))
    return np.argsort(-scores, axis=1)[:, :count]


def row_span(source: Array, rows: np.ndarray) -> Array:
    """Return an orthonormal basis of the chosen rows' span: source (p, q), rows (draws, s) → (draws, q, s).

    Columns beyond the rank are zero: singular values under 1e-10 of the largest do not count.
    """
    basis, values, _ = np.linalg.svd(np.swapaxes(source[rows], -1, -2), full_matrices=False)
    return basis * (values > 1e-10 * values[..., :1])[..., None, :]


def cur_errors(tasks: Array, source: Array, columns: np.ndarray, *, rows: np.ndarray, fitted: bool) -> Array:
    """Compute ‖W*_i - C U R‖²_F of every task: tasks (m, p, q), source (p, q) → (draws, m).

    C = source[:, columns] and R = source[rows], each (draws, s) indices. U = C⁺ W R⁺ is the best (Definition 6), for
    W = W*_i if `fitted`, else W = source. With orthonormal bases Q of the spans, C U R = Q_C Q_Cᵀ W Q_R Q_Rᵀ.
    """
    left, right = row_span(source.T, columns), row_span(source, rows)
    inner = np.swapaxes(left, -1, -2)[:, None] @ tasks @ right[:, None]
    used = inner if fitted else (np.swapaxes(left, -1, -2) @ source @ right)[:, None]
    squares = np.square(tasks).sum(axis=(1, 2)) - 2 * (inner * used).sum(axis=(2, 3)) + np.square(used).sum(axis=(2, 3))
    return np.maximum(squares, 0.0)  # rounding can make it negative


def worst_errors(rng: np.random.Generator, tasks: RareTasks, side: Side, *, draws: int) -> Array:
    """Compute max_i ‖W*_i - W̃_i‖²_F for every draw of pivots, (draws,).

    An unclustered side puts all tasks into one cluster, so that k = 1 gives equal sides.
    """
    labels = tasks.labels if side.clustered else np.zeros_like(tasks.labels)
    worst = np.zeros(draws)
    for cluster, centroid in enumerate(means(tasks.matrices, labels)):
        members = tasks.matrices[labels == cluster]
        rows = pivots(rng, centroid, side.count, by_length=side.by_length, draws=draws)
        columns = pivots(rng, centroid.T, side.count, by_length=side.by_length, draws=draws)
        if side.reading == "own":
            errors = np.stack([cur_errors(w[None], w, columns, rows=rows, fitted=False)[:, 0] for w in members], axis=1)
        else:
            errors = cur_errors(members, centroid, columns, rows=rows, fitted=side.reading == "span")
        worst = np.maximum(worst, errors.max(axis=1))
    return worst


def contests(settings: Theorem2, tasks: RareTasks, seed: list[int]) -> dict[str, Record]:
    """Compute expected worst-case errors of both sides of every contest in one world; equal sides once."""
    pairs = {str(each): each.sides(settings.pivots, int(tasks.labels.max()) + 1) for each in settings.contests}
    expected = {}
    for side in dict.fromkeys(side for pair in pairs.values() for side in pair):
        rng = np.random.default_rng([*seed, 2])
        expected[side] = float(worst_errors(rng, tasks, side, draws=settings.pivot_draws).mean())
    return {
        name: {"global": expected[one], "local": expected[other], "difference": expected[one] - expected[other]}
        for name, (one, other) in pairs.items()
    }


def steps(settings: Theorem2, tasks: RareTasks, seed: list[int], *, sampling: str) -> Record:
    """Measure Definition 1 and steps (25) - (28) in one world: γ, η and the bounds for the rare cluster's tasks.

    Both sides draw pivots by `sampling` (uniform or length), U is fitted; errors are norms, not squares, as in (26).
    Pivots miss v if their rows' span contains less than half of ‖v‖².
    """
    clusters, rng = int(tasks.labels.max()) + 1, np.random.default_rng([*seed, 3])
    style = {"by_length": sampling == "length", "draws": settings.pivot_draws}
    rare = tasks.matrices[tasks.labels == clusters - 1]
    mean, own_mean = tasks.matrices.mean(axis=0), rare.mean(axis=0)
    rows = pivots(rng, mean, settings.pivots, **style)
    columns = pivots(rng, mean.T, settings.pivots, **style)
    own_rows = pivots(rng, own_mean, settings.pivots // clusters, **style)
    errors = np.sqrt(cur_errors(rare, mean, columns, rows=rows, fitted=True).max(axis=1))
    missed, missed_locally = (
        np.square(tasks.rare @ row_span(source, chosen)).sum(axis=-1) < 0.5
        for source, chosen in ((mean, rows), (own_mean, own_rows))
    )
    gamma, eta = errors[missed].max(initial=0.0), float(missed.mean())
    below = errors[missed] < gamma - ZERO
    return {
        "definition1_holds": bool(errors.max() > errors.min() + ZERO),
        "missed_globally": eta,
        "missed_locally": float(missed_locally.mean()),
        "missed_globally_more": eta - float(missed_locally.mean()),
        "missed_below_gamma": float(below.sum() / max(len(below), 1)),
        "bound_26_holds": not below.any(),
        "bound_27_holds": bool(errors.mean() >= gamma * eta - ZERO),
    }


def run(settings: Theorem2) -> list[Point]:
    """Compute all curves of Theorem 2 over the rare direction's weight. Deterministic given `settings.seed`."""
    found = []
    for setting, world in settings.worlds.items():
        for point, x in enumerate(settings.weights):
            records: dict[str, list[Record]] = {}
            for draw in range(settings.draws):
                seed = [settings.seed, point, draw]
                tasks = draw_rare_tasks(np.random.default_rng(seed), world, weight=x)
                measured = contests(settings, tasks, seed)
                for sampling in ("uniform", "length"):
                    measured[f"steps, {sampling} sampling"] = steps(settings, tasks, seed, sampling=sampling)
                for series, record in measured.items():
                    records.setdefault(series, []).append(record)
            for series, each in records.items():
                found += points(each, study=STUDY, setting=setting, series=series, weight=x)
    return found
