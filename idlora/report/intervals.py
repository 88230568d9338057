"""95 % intervals for a mean over items: Wilson for 0/1 items, percentile bootstrap otherwise.

All values are fractions; every bootstrap is seeded, so that a table's bytes repeat.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0
CHUNK = 500
"""Resamples at a time where seeds are drawn too: bounds the memory at CHUNK x items."""

Interval = tuple[float, float]


def interval(values: ArrayLike) -> Interval:
    """The interval of a mean of independent items in [0, 1]: values (n,) float.

    Wilson where all are 0 or 1. Also where all are *the same* extreme the bootstrap would have no width, so Wilson
    covers pass@k at the floor and the ceiling too. Otherwise `bootstrap`. Raises ValueError without a value.
    """
    values = _checked(values)
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), len(values))
    return bootstrap(values)


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval for ``successes`` of ``n`` (Wilson 1927), as scipy computes it."""
    found = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def bootstrap(values: ArrayLike) -> Interval:
    """Percentile bootstrap of the mean over items, values (n,) float.

    A resample of n items has multinomial counts over the distinct values, so these are drawn instead of the items:
    the same distribution at a fraction of the time, and whatever the order of the items, the same bytes.
    """
    distinct, counts = np.unique(_checked(values), return_counts=True)
    return _bootstrap(tuple(distinct.tolist()), tuple(counts.tolist()))


@lru_cache(maxsize=4096)  # metrics, tests and orderings ask about the same items
def _bootstrap(distinct: tuple[float, ...], counts: tuple[int, ...]) -> Interval:
    n = sum(counts)
    draws = np.random.default_rng(SEED).multinomial(n, np.array(counts) / n, size=RESAMPLES)
    return _percentiles(draws @ np.array(distinct) / n)


def bootstrap_seeds(values: ArrayLike) -> Interval:
    """Percentile bootstrap of the mean over seeds and items together, values (seeds, n) float.

    Both are resampled, crossed (all seeds saw the same items): Σ_sn w_s v_sn u_n with multinomial w and u. As in
    `bootstrap`, items with the same values under every seed are drawn together. With few seeds it is too narrow: two
    seeds cannot show how far a third one would lie. Raises ValueError for fewer than two.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[0] < 2:
        raise ValueError(f"a bootstrap over seeds takes (seeds ≥ 2, items); got {values.shape}")
    seeds, n = values.shape
    distinct, counts = np.unique(values, axis=1, return_counts=True)
    rng, means = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES // CHUNK):
        by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=CHUNK) / seeds
        by_item = rng.multinomial(n, counts / n, size=CHUNK) / n
        means.append(((by_seed @ distinct) * by_item).sum(axis=1))
    return _percentiles(np.concatenate(means))


def _percentiles(means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"an interval takes one value per item, at least one; got shape {values.shape}")
    return values
