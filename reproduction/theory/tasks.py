"""Synthetic task matrices with k clusters, W*_i = B A_i + E_i: Assumptions 1 and 2 of the paper, and how to break them.

W* (m, p, q)   B (p, r)   A (m, r, q)   E (m, p, q)        A_i = A_0 + separation · C_l(i) + D_i
"""

from dataclasses import dataclass

import numpy as np

from reproduction.theory.clusters import Array, Labels, means


@dataclass(frozen=True)
class Tasks:
    """Optimal parameters of m tasks (Eq. 7): ``basis`` B (p, r), ``codes`` A_i (m, r, q), ``noise`` E_i (m, p, q)."""

    basis: Array
    codes: Array
    noise: Array
    labels: Labels

    @property
    def matrices(self) -> Array:
        """W*_i = B A_i + E_i, (m, p, q)."""
        return self.basis @ self.codes + self.noise


@dataclass(frozen=True)
class World:
    """What task matrices are drawn from.

    ``sizes``: tasks of each cluster. ``rows``, ``columns``, ``rank``: p, q and r = r_g of Assumption 2.
    ``within_rank``: r_l of Assumption 1, the rank of differences within a cluster. Up to ``rank`` they lie in B's
    span; above it no B of that rank can hold them, and they are part of E_i. ``noise``: √ε, ‖E_i‖_F without that part.
    ``correlation``: cosine between E_i and its cluster's shift B(A_l(i) - A_global); Assumption 2 bounds only its size.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by whoever makes it from a config)

    sizes: tuple[int, ...]
    rows: int
    columns: int
    rank: int
    within_rank: int
    noise: float
    correlation: float

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes must be one or more positive numbers of tasks, not {self.sizes}")
        if not 1 <= self.rank <= min(self.rows, self.columns):
            raise ValueError(f"rank {self.rank} does not fit matrices of {self.rows} × {self.columns}")
        if not 1 <= self.within_rank <= self.rows:
            raise ValueError(f"within_rank must lie between 1 and the {self.rows} rows, not {self.within_rank}")
        if self.noise < 0 or not -1 <= self.correlation <= 1:
            raise ValueError(f"noise {self.noise} must be ≥ 0 and correlation {self.correlation} within -1 … 1")


def draw_tasks(rng: np.random.Generator, world: World, *, separation: float) -> Tasks:
    """Draw tasks whose clusters lie ``separation`` apart from the common A_0, in units of the spread within a cluster.

    A_0, every cluster's shift C_l and every task's D_i have Frobenius norm 1; B's columns have expected norm 1.
    At separation 0 there are no clusters: the tasks are exchangeable (unless the noise follows the labels).
    Leaves out clusters of unequal spread and heavy tails.
    """
    p, q, r, w = world.rows, world.columns, world.rank, world.within_rank
    labels = np.repeat(np.arange(len(world.sizes)), world.sizes)
    m = len(labels)
    basis = rng.normal(size=(p, r)) / np.sqrt(p)
    common = unit(rng.normal(size=(1, r, q)))
    shifts = unit(rng.normal(size=(len(world.sizes), r, q)))[labels]
    directions = rank_one(rng, (m, p, q))
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
    return Tasks(basis=basis, codes=codes, noise=noise, labels=labels)


def rank_one(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Random matrices (m, p, q) of rank one and norm 1: as E_i they leave Assumption 1 its bound on differences."""
    m, p, q = shape
    return unit(rng.normal(size=(m, p, 1)) * rng.normal(size=(m, 1, q)))


def unit(matrices: Array) -> Array:
    """Each matrix of (…, p, q) divided by its Frobenius norm; a zero matrix stays zero."""
    norms = np.linalg.norm(matrices, axis=(-2, -1), keepdims=True)
    return matrices / np.where(norms > 0, norms, 1)
