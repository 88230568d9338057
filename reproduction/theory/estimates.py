"""Points of curves with their 95 % intervals, CSV output, and the k-means of several studies."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.cluster.vq import ClusterError, kmeans2

Array = NDArray[np.float64]
Labels = NDArray[np.intp]

Record = Mapping[str, float | bool]
"""One draw's measurements by name; bools are averaged to a share of the draws."""

ZERO = 1e-9
"""Threshold below which values are written as 0: quantities are of order one, so smaller values are rounding errors."""


class Settings:
    """Base of the dataclasses read from `experiments/theory/settings.yaml`; an unknown key is an error."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


class Point(NamedTuple):
    """One point of one curve: `quantity` of `series` in `setting` where `x_name` is `x`."""

    study: str
    setting: str
    series: str
    quantity: str
    x_name: str
    x: float
    mean: float
    low: float
    high: float
    draws: int


def interval(values: ArrayLike) -> tuple[float, float, float]:
    """Return mean, low and high of a 95 % interval over independent draws: values (n,), n ≥ 2, float or bool.

    Student's t for numbers; Wilson's score interval, which stays inside [0, 1], for bools. Intervals are pointwise,
    without correction for the number of points on a curve.
    """
    values = np.asarray(values)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval takes two or more finite values, one per draw; got {values!r}")
    mean, n = float(values.mean()), len(values)
    if values.dtype == bool:
        found = stats.binomtest(int(values.sum()), n).proportion_ci(0.95, method="wilson")
        return mean, float(found.low), float(found.high)
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def points(records: Sequence[Record], *, study: str, setting: str, series: str, **x: float) -> list[Point]:
    """Return a `Point` for each quantity of the records (one record per draw); `x` is the axis' name and value."""
    ((x_name, value),) = x.items()
    return [
        Point(study, setting, series, name, x_name, float(value), *interval([r[name] for r in records]), len(records))
        for name in records[0]
    ]


def csv_text(rows: Iterable[tuple], fields: Sequence[str]) -> str:
    """Format rows as CSV: floats to six significant digits, rounding errors as 0."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([number(v) if isinstance(v, float) else v for v in row] for row in rows)
    return out.getvalue()


def number(value: float, digits: int = 6) -> str:
    """Format a float to `digits` significant digits; values below `ZERO` as 0."""
    return "0" if abs(value) < ZERO else f"{value:.{digits}g}"


def kmeans(vectors: Array, k: int, *, rng: np.random.Generator, starts: int = 3) -> Labels:
    """Return the cluster of each vector (n, d): scipy's Lloyd iterations from k-means++, the best of `starts`.

    The minimum cluster size of §4.1 is not enforced: the theorems do not use it.

    Raises:
        ValueError: every start ended with an empty cluster.
    """
    if k == 1:
        return np.zeros(len(vectors), dtype=np.intp)
    if vectors.shape[1] > len(vectors):  # coordinates in the span: same distances, fewer dimensions
        vectors = np.linalg.qr(vectors.T, mode="r").T
    found: list[tuple[float, Labels]] = []
    for _ in range(starts):
        try:
            _, labels = kmeans2(vectors, k, iter=20, minit="++", rng=rng, missing="raise", check_finite=False)
        except ClusterError:
            continue
        labels = labels.astype(np.intp)
        if len(np.unique(labels)) == k:
            found.append((explained(vectors, labels), labels))
    if not found:
        raise ValueError(f"none of {starts} starts of k-means kept {k} clusters of {len(vectors)} vectors non-empty")
    return max(found, key=lambda each: each[0])[1]


def means(values: Array, labels: Labels) -> Array:
    """Return each cluster's mean, (k, …): values (n, …), labels (n,) in 0 … k-1."""
    return np.stack([values[labels == cluster].mean(axis=0) for cluster in range(labels.max() + 1)])


def explained(vectors: Array, labels: Labels) -> float:
    """Return the between-cluster share of variance, Σ_i ‖μ_l(i) - μ‖² / Σ_i ‖x_i - μ‖²: vectors (n, d) → 0 … 1."""
    centred = vectors - vectors.mean(axis=0)
    return float(np.square(means(centred, labels)[labels]).sum() / np.square(centred).sum())


def unit(matrices: Array) -> Array:
    """Divide each matrix of (…, p, q) by its Frobenius norm; zero matrices stay zero."""
    norms = np.linalg.norm(matrices, axis=(-2, -1), keepdims=True)
    return matrices / np.where(norms > 0, norms, 1)


def rank_one(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Draw random matrices (m, p, q) of rank one and norm 1."""
    m, p, q = shape
    return unit(rng.normal(size=(m, p, 1)) * rng.normal(size=(m, 1, q)))
