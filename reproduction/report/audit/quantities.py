"""Printed numbers as intervals: each stands for all values that round to it.

    46      → [45.5, 46.5]          0.56    → [0.555, 0.565]         83.9M   → [83,850,000, 83,950,000]

Arithmetic is interval arithmetic over exact fractions: 100 · (1 - 0.56/1.03) is every value that the two printed
numbers allow. Bounds are inclusive, since the rounding of halves is unknown.
"""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from reproduction.report.counts import UNITS

PRINTED = re.compile(r"(?P<number>-?\d+(?:\.(?P<decimals>\d+))?)(?:e(?P<exponent>-?\d+))?(?P<unit>[KMB]?)")
SYMBOLS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True)
class Cell:
    """The place of a number: table ("table1"), base, method (Table 6: method and rank) and column."""

    table: str
    base: str
    method: str
    column: str

    def __str__(self) -> str:
        return f"{self.table} {self.base} {self.column}: {self.method}"


@dataclass(frozen=True)
class Quantity:
    """A value and its interval, low ≤ value ≤ high.

    Printed numbers have ``text``, ``cell`` and ``dagger`` (the paper's significance mark); computed ones do not. Use
    each printed number once in an expression: the intervals of quantities are treated as independent.
    """

    value: Fraction
    low: Fraction
    high: Fraction
    text: str = ""
    cell: Cell | None = None
    dagger: bool = False

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.value + other.value, self.low + other.low, self.high + other.high)

    def __neg__(self) -> "Quantity":
        return Quantity(-self.value, -self.high, -self.low)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return self + (-other)

    def __mul__(self, other: "Quantity") -> "Quantity":
        return _corners(operator.mul, self, other)

    def __truediv__(self, other: "Quantity") -> "Quantity":
        """Divide. Raises ZeroDivisionError if the divisor's interval contains zero."""
        if other.low <= 0 <= other.high:
            raise ZeroDivisionError(f"division by {other}, which may be zero")
        return _corners(operator.truediv, self, other)

    def __abs__(self) -> "Quantity":
        low, high = sorted((abs(self.low), abs(self.high)))
        return Quantity(abs(self.value), Fraction(0) if self.low < 0 < self.high else low, high)

    def __str__(self) -> str:
        if self.text:
            return self.text
        ends = "" if self.low == self.high else f" [{_short(self.low)}, {_short(self.high)}]"
        return _short(self.value) + ends

    def compare(self, symbol: str, other: "Quantity") -> bool:
        """Evaluate ``self symbol other`` for one of `SYMBOLS`.

        Two numbers printed in tables are compared as printed; equal ones are a tie, and a tie is no lead. Otherwise the
        comparison holds if *some* values within the two intervals satisfy it.
        """
        if self.cell and other.cell:
            return SYMBOLS[symbol](self.value, other.value)
        if symbol == "==":
            return self.low <= other.high and other.low <= self.high
        mine, theirs = (self.high, other.low) if symbol.startswith(">") else (self.low, other.high)
        return SYMBOLS[symbol](mine, theirs)


def exact(number: int | float | Fraction) -> Quantity:
    """Return a number with an interval of width zero."""
    value = Fraction(number)
    return Quantity(value, value, value)


def printed(text: str, *, cell: Cell | None = None, dagger: bool = False) -> Quantity:
    """Parse a printed number: "63.5", "0.56", "5e-5", "83.9M". Raises ValueError for anything else."""
    match = PRINTED.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no printed number; 63.5, 5e-5, 83.9M and 1.3B are")
    scale = Fraction(10) ** int(match["exponent"] or 0) * UNITS.get(match["unit"], 1)
    half = Fraction(1, 2) * Fraction(1, 10) ** len(match["decimals"] or "") * scale
    value = Fraction(match["number"]) * scale
    return Quantity(value, value - half, value + half, text=text, cell=cell, dagger=dagger)


def extreme(pick: Callable, numbers: Iterable[Quantity]) -> Quantity:
    """Apply ``pick`` (max or min). Numbers printed in tables give one of them, others the interval of the extreme."""
    numbers = list(numbers)
    if all(number.cell for number in numbers):
        return pick(numbers, key=lambda number: number.value)
    return Quantity(*(pick(getattr(number, end) for number in numbers) for end in ("value", "low", "high")))


def mean(numbers: Iterable[Quantity]) -> Quantity:
    """Return the arithmetic mean. Raises ZeroDivisionError for no numbers."""
    numbers = list(numbers)
    return sum(numbers, start=exact(0)) / exact(len(numbers))


def fewer(part: Quantity, whole: Quantity) -> Quantity:
    """Return the reduction from ``whole`` to ``part`` in percent: 100 · (1 - part/whole)."""
    return exact(100) * (exact(1) - part / whole)


def relative(to: Quantity, of: Quantity) -> Quantity:
    """Return the relative gain of ``to`` over ``of`` in percent: 100 · (to/of - 1)."""
    return exact(100) * (to / of - exact(1))


def share(trainable: Quantity, base: Quantity) -> Quantity:
    """Return 100 · trainable / (base + trainable), in percent. The formula uses each number once."""
    return exact(100) / (exact(1) + base / trainable)


def _corners(combine: Callable[[Fraction, Fraction], Fraction], left: Quantity, right: Quantity) -> Quantity:
    ends = [combine(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
    return Quantity(combine(left.value, right.value), min(ends), max(ends))


def _short(number: Fraction) -> str:
    """Format whole and large numbers as integers, others with their significant digits: 45.63, 0.0006."""
    if number.denominator == 1 or abs(number) >= 10_000:
        return f"{round(number):,}"
    return f"{float(number):.2f}" if abs(number) >= 1 else f"{float(number):.3g}"
