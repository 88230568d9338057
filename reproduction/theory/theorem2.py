"""Theorem 2 (Cluster-Pivot Stability) measured: E_P max_i ‖W*_i - W̃_i^CUR‖² ≥ E_Pl max_i ‖W*_i - W̃_i‖² (Eq. 10, 22).

The paper does not say what W̃_i is made of, how local pivots are drawn or how many each side may keep, so each is an
option of a `Contest`. Expectations are over draws of pivots, intervals over worlds.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reproduction.theory.clusters import Array, means
from reproduction.theory.cur import RareTasks, RareWorld, cur_errors, draw_rare_tasks, pivots, row_span
from reproduction.theory.estimates import ZERO, Point, Record, points

STUDY = "theorem2"
MISSED = 0.5
"""Pivots miss v where their rows' span holds less than this share of ‖v‖²."""


@dataclass(frozen=True)
class Side:
    """One side of a contest: ``count`` rows and as many columns for each cluster, or for all tasks together."""

    reading: str
    by_length: bool
    clustered: bool
    count: int


@dataclass(frozen=True)
class Contest:
    """Which CUR is compared with which.

    ``reading``, what W̃_i is. `centroid`: the CUR of the mean matrix, of all tasks or of the cluster (what step 3 of
    the proof bounds). `span`: C and R from that mean, U fitted to each task. `own`: as `centroid`, but the global side
    takes rows and columns of W*_i itself, at positions common to all tasks (23).
    ``sampling``, how pivots are drawn. `uniform`; `length`: by squared norm; `paper`: uniform globally (below 23), by
    squared norm within clusters (24).
    ``budget``, rows and columns of one cluster. `total`: the global number shared among the clusters, so that both
    sides keep equally many. `per_task`: the global number for each, k times as many in all.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    reading: Literal["centroid", "span", "own"]
    sampling: Literal["paper", "uniform", "length"]
    budget: Literal["total", "per_task"]

    def __str__(self) -> str:
        return f"{self.reading}, {self.sampling} sampling, {self.budget.replace('_', ' ')} budget"

    def sides(self, count: int, clusters: int) -> tuple[Side, Side]:
        """The global side with ``count`` pivots and the local one with what the budget gives each cluster."""
        local = "centroid" if self.reading == "own" else self.reading
        share = count // clusters if self.budget == "total" else count
        return (
            Side(self.reading, self.sampling == "length", clustered=False, count=count),
            Side(local, self.sampling != "uniform", clustered=True, count=share),
        )


@dataclass(frozen=True)
class Theorem2:
    """Settings: ``worlds`` by name (the first is the base), ``contests`` in each, ``weights`` w, ``pivots`` s.

    ``draws`` worlds are drawn, and in each ``pivot_draws`` sets of pivots, over which the expectation is taken.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

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


def run(settings: Theorem2) -> list[Point]:
    """All curves of Theorem 2 over the rare direction's weight. Deterministic by ``settings.seed``."""
    found = []
    for setting, world in settings.worlds.items():
        for point, x in enumerate(settings.weights):
            records: dict[str, list[Record]] = {}
            for draw in range(settings.draws):
                seed = [settings.seed, point, draw]
                tasks = draw_rare_tasks(np.random.default_rng(seed), world, weight=x)
                for series, record in {**contests(settings, tasks, seed), **steps(settings, tasks, seed)}.items():
                    records.setdefault(series, []).append(record)
            for series, each in records.items():
                found += points(each, study=STUDY, setting=setting, series=series, x_name="weight", x=float(x))
    return found


def contests(settings: Theorem2, tasks: RareTasks, seed: list[int]) -> dict[str, Record]:
    """Expected worst-case errors of both sides of every contest in one world; a shared side is computed once."""
    pairs = {str(each): each.sides(settings.pivots, int(tasks.labels.max()) + 1) for each in settings.contests}
    expected = {}
    for side in dict.fromkeys(side for pair in pairs.values() for side in pair):
        rng = np.random.default_rng([*seed, 2])
        expected[side] = float(worst_errors(rng, tasks, side, draws=settings.pivot_draws).mean())
    return {
        name: {"global": expected[one], "local": expected[other], "difference": expected[one] - expected[other]}
        for name, (one, other) in pairs.items()
    }


def worst_errors(rng: np.random.Generator, tasks: RareTasks, side: Side, *, draws: int) -> Array:
    """max_i ‖W*_i - W̃_i‖²_F for every draw of pivots, (draws,).

    A side that is not clustered is the same with all tasks in one cluster, so that k = 1 gives equal sides.
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


def steps(settings: Theorem2, tasks: RareTasks, seed: list[int]) -> dict[str, Record]:
    """Definition 1 and steps (25) - (28) in one world, pivots uniform or by squared norm on both sides, U fitted."""
    return {
        f"steps, {sampling} sampling": _steps(settings, tasks, seed, by_length=sampling == "length")
        for sampling in ("uniform", "length")
    }


def _steps(settings: Theorem2, tasks: RareTasks, seed: list[int], *, by_length: bool) -> Record:
    """γ, η and the bounds for the rare cluster's tasks; errors are norms here, not squares, as in (26)."""
    clusters = int(tasks.labels.max()) + 1
    rng, style = (
        np.random.default_rng([*seed, 3]),
        {"by_length": by_length, "draws": settings.pivot_draws},
    )
    rare = tasks.matrices[tasks.labels == clusters - 1]
    mean, own_mean = tasks.matrices.mean(axis=0), rare.mean(axis=0)
    rows = pivots(rng, mean, settings.pivots, **style)
    columns = pivots(rng, mean.T, settings.pivots, **style)
    own_rows = pivots(rng, own_mean, settings.pivots // clusters, **style)
    errors = np.sqrt(cur_errors(rare, mean, columns, rows=rows, fitted=True).max(axis=1))
    missed, missed_locally = (
        np.square(tasks.rare @ row_span(source, chosen)).sum(axis=-1) < MISSED
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
