"""95 % intervals for a mean over items: Wilson for 0/1 items, percentile bootstrap otherwise.

All values are fractions. Every bootstrap is seeded, so that a table's bytes repeat.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0
CHUNK = 500
"""Resamples drawn at a time; bounds the memory at CHUNK x items."""

FEW = 64
"""Maximum number of distinct values (or patterns over seeds) drawn by their counts; more are drawn item by item."""

PARTS = 12_600
"""Scores and their differences are multiples of 1/12,600: means of 1, 3, 5, 10 or 100 samples, or pass@k of 10."""

Interval = tuple[float, float]


def interval(values: ArrayLike, weights: ArrayLike | None = None) -> Interval:
    """Return the interval of a mean of independent items: values (n,) in [0, 1], or any with weights (n,) above 0.

    Wilson if all values are 0 or 1 (a bootstrap of equal values has no width), else `bootstrap`. A weighted mean
    Σ w v / Σ w is resampled with the weights of its items, to first order (the linearised ratio). Raises ValueError
    for no values.
    """
    values = _checked(values)
    if weights is not None:
        return around(*residuals(values, relative(weights)), bootstrap)
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), len(values))
    return bootstrap(values)


def relative(weights: ArrayLike) -> NDArray[np.float64]:
    """Return weights (n,) divided by their mean."""
    weights = np.asarray(weights, dtype=float)
    return weights / weights.mean()


def residuals(
    values: NDArray[np.float64], weights: NDArray[np.float64], strata: NDArray[np.int_] | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Return the weighted mean m of values (…, n), and w (v - m), whose mean is zero and varies like m over resamples.

    ``strata`` (n,) number the sources of a mean over several. Their shares are fixed, so each item's own source mean is
    subtracted and differences between sources are no part of the error.
    """
    mean, centre = float((values * weights).mean()), np.empty_like(weights)
    for stratum in np.unique(strata) if strata is not None else [None]:
        inside = np.full(len(weights), True) if stratum is None else strata == stratum
        centre[inside] = (values * weights)[..., inside].mean() / weights[inside].mean()
    return mean, weights * (values - centre)


def around(mean: float, rest: NDArray[np.float64], resampled: Callable[[ArrayLike], Interval]) -> Interval:
    """Return the interval of a weighted mean from that of its `residuals`."""
    low, high = resampled(rest)
    return mean + low, mean + high


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval (Wilson 1927)."""
    found = scipy.stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def bootstrap(values: ArrayLike) -> Interval:
    """Percentile bootstrap of the mean over items, values (n,).

    A resample of n items has multinomial counts over the distinct values. Few distinct values are drawn by their
    counts: the same distribution in less time, and the same bytes for any order of the items.
    """
    values = _checked(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > FEW:
        whole, parts = _in_parts(values)
        sums = np.concatenate([drawn @ whole for drawn in _resamples(len(values))])
        return _percentiles(sums / (len(values) * parts))
    return _bootstrap(tuple(distinct.tolist()), tuple(counts.tolist()))


@lru_cache(maxsize=4096)  # metrics, tests and orderings use the same items
def _bootstrap(distinct: tuple[float, ...], counts: tuple[int, ...]) -> Interval:
    n = sum(counts)
    draws = np.random.default_rng(SEED).multinomial(n, np.array(counts) / n, size=RESAMPLES)
    whole, parts = _in_parts(np.array(distinct))
    return _percentiles(draws @ whole / (n * parts))


def bootstrap_seeds(values: ArrayLike) -> Interval:
    """Percentile bootstrap of the mean over seeds and items together, values (seeds, n).

    Both are resampled, crossed (all seeds saw the same items): Σ_sn w_s v_sn u_n with multinomial w and u. With few
    seeds it is too narrow: two seeds cannot show how far a third would lie. Raises ValueError for fewer than two.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[0] < 2:
        raise ValueError(f"a bootstrap over seeds takes (seeds ≥ 2, items); got {values.shape}")
    seeds, n = values.shape
    distinct, counts = np.unique(values, axis=1, return_counts=True)
    rng, means = np.random.default_rng(SEED), []
    if many := distinct.shape[1] > FEW:
        distinct = values
    whole, parts = _in_parts(distinct)
    drawn = _resamples(n) if many else (rng.multinomial(n, counts / n, size=CHUNK) for _ in range(RESAMPLES // CHUNK))
    for by_item in drawn:
        by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(by_item))
        means.append((by_seed * (by_item @ whole.T)).sum(axis=1) / (seeds * n * parts))
    return _percentiles(np.concatenate(means))


def _resamples(n: int) -> Iterator[NDArray[np.float64]]:
    """Yield the counts of each of n items in `RESAMPLES` fixed draws, as arrays (`CHUNK`, n)."""
    return (drawn.astype(float) for drawn in _drawn(n))


@lru_cache(maxsize=8)
def _drawn(n: int) -> list[NDArray[np.uint8]]:
    rng, row = np.random.default_rng(SEED), np.arange(CHUNK)[:, None] * n
    chunks = (rng.integers(n, size=(CHUNK, n)) + row for _ in range(RESAMPLES // CHUNK))
    return [np.bincount(each.ravel(), minlength=CHUNK * n).reshape(CHUNK, n).astype(np.uint8) for each in chunks]


def _in_parts(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return scores as whole numbers of `PARTS`, and `PARTS`; other values, such as losses, unchanged, and 1.

    Sums of whole numbers are exact. For others the last bit depends on the order in which a CPU's BLAS adds, and with
    it the printed digit of a mean halfway between two, and the side of zero on which an interval ends.
    """
    whole = np.rint(values * PARTS)
    return (whole, PARTS) if np.allclose(whole, values * PARTS, rtol=0, atol=1e-6) else (values, 1)


def _percentiles(means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"an interval takes one value per item, at least one; got shape {values.shape}")
    return values
