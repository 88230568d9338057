"""A curve as data: one row per point, with its mean, its 95 % interval and the number of draws behind it."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
ZERO = 1e-9
"""What is smaller is written as 0: every measured quantity is of order one, so this is rounding and differs by BLAS."""

Record = Mapping[str, float | bool]
"""One draw's measurements by name; a bool is counted as a share of the draws."""


class Estimate(NamedTuple):
    """A mean over independent draws with its interval."""

    mean: float
    low: float
    high: float
    draws: int


@dataclass(frozen=True)
class Point:
    """One point of one curve: ``quantity`` of ``series`` in ``setting`` where ``x_name`` is ``x``."""

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


def estimate(values: ArrayLike) -> Estimate:
    """Mean and 95 % interval over draws: values (n,), n ≥ 2, float or bool.

    Student's t for numbers; Wilson's score interval for bools, whose share it stays inside [0, 1] for (scipy's).
    Raises ValueError for fewer than two values or one that is not finite. Leaves out any correction for the number
    of points on a curve: an interval is for its own point.
    """
    values = np.asarray(values)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an estimate takes two or more finite values, one per draw; got {values!r}")
    n = len(values)
    if values.dtype == bool:
        found = stats.binomtest(int(values.sum()), n).proportion_ci(CONFIDENCE, method="wilson")
        return Estimate(float(values.mean()), float(found.low), float(found.high), n)
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def points(records: Sequence[Record], **where: str | float) -> list[Point]:
    """One `Point` for each quantity of the records (one record per draw); ``where`` are the point's other fields."""
    return [
        Point(**where, quantity=name, **estimate([record[name] for record in records])._asdict()) for name in records[0]
    ]


def csv_text(rows: Iterable[object], kind: type) -> str:
    """Instances of the dataclass ``kind`` as CSV: floats to six significant digits, rounding errors as 0."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    writer.writerows([number(v) if isinstance(v, float) else v for v in astuple(row)] for row in rows)
    return out.getvalue()


def number(value: float, digits: int = 6) -> str:
    """A float to ``digits`` significant digits; what is below `ZERO` is 0."""
    return "0" if abs(value) < ZERO else f"{value:.{digits}g}"
