"""CUR decompositions with random pivots, and synthetic tasks with a rare direction (Definitions 1 and 6).

    W*_i = X V_0ᵀ + w_l z_l v_lᵀ + N_i        X V_0ᵀ shared, of rank r_0 and norm 1;  v_l the cluster's own direction
    W̃ = C U R,   U = C⁺ W R⁺                  C columns and R rows at the pivots

The last cluster is the rare one: few tasks, its direction in few rows.
"""

from dataclasses import dataclass

import numpy as np

from reproduction.theory.clusters import Array, Labels
from reproduction.theory.tasks import rank_one, unit

RANK_TOLERANCE = 1e-10
"""Singular values below this share of the largest do not count into a span of pivots."""


@dataclass(frozen=True)
class RareWorld:
    """``sizes``: tasks of each cluster, the rare one last. ``side``: W* is (side, side). ``shared_rank``: r_0.

    ``support``: rows that hold the rare direction. ``spread``: ‖N_i‖_F of the task's own part, which has rank one.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    sizes: tuple[int, ...]
    side: int
    shared_rank: int
    support: int
    spread: float

    def __post_init__(self) -> None:
        if self.shared_rank + len(self.sizes) > self.side or not 1 <= self.support <= self.side:
            raise ValueError(
                f"{self.shared_rank} shared and {len(self.sizes)} own directions, {self.support} rows of support: "
                f"they do not fit matrices of {self.side} rows"
            )


@dataclass(frozen=True)
class RareTasks:
    """``matrices`` W* (m, p, p), ``labels`` (m,), ``rare`` the direction v (p,) of the last cluster."""

    matrices: Array
    labels: Labels
    rare: Array


def draw_rare_tasks(rng: np.random.Generator, world: RareWorld, *, weight: float) -> RareTasks:
    """Tasks whose last cluster has its own direction with ``weight``, the others' with 1 (‖w_l z_l v_lᵀ‖_F = w_l)."""
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
    """Row indices (draws, count), without replacement: uniform, or row by row by squared norm (Gumbel's top-k)."""
    scores = rng.gumbel(size=(draws, len(matrix)))
    if by_length:
        scores = scores + np.log(np.maximum(np.square(matrix).sum(axis=1), np.finfo(float).tiny))
    return np.argsort(-scores, axis=1)[:, :count]


def span(vectors: Array) -> Array:
    """Orthonormal basis of the columns' span: (…, p, s) → (…, p, s), zero columns where the rank is lower."""
    basis, values, _ = np.linalg.svd(vectors, full_matrices=False)
    return basis * (values > RANK_TOLERANCE * values[..., :1])[..., None, :]


def row_span(source: Array, rows: np.ndarray) -> Array:
    """`span` of the chosen rows: source (p, q), rows (draws, s) → (draws, q, s)."""
    return span(np.swapaxes(source[rows], -1, -2))


def cur_errors(tasks: Array, source: Array, columns: np.ndarray, *, rows: np.ndarray, fitted: bool) -> Array:
    """‖W*_i - C U R‖²_F of every task: tasks (m, p, q), source (p, q) → (draws, m).

    C = source[:, columns] and R = source[rows], each (draws, s) indices. U = C⁺ W R⁺ is the best (Definition 6), of
    W = W*_i where ``fitted``, else W = source. With orthonormal bases Q of the spans, C U R = Q_C Q_Cᵀ W Q_R Q_Rᵀ.
    """
    left, right = row_span(source.T, columns), row_span(source, rows)
    inner = np.swapaxes(left, -1, -2)[:, None] @ tasks @ right[:, None]
    kept = inner if fitted else (np.swapaxes(left, -1, -2) @ source @ right)[:, None]
    squares = np.square(tasks).sum(axis=(1, 2)) - 2 * (inner * kept).sum(axis=(2, 3)) + np.square(kept).sum(axis=(2, 3))
    return np.maximum(squares, 0.0)  # rounding of a difference of equal numbers
