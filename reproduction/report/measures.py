"""Units of metrics: percent of items, or a loss in nats or bits."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Unit and format of a metric's values.

    Args:
        name: of the group of columns, and of the Holm family, with this measure.
        unit: of a value.
        points: unit of a difference between two values.
        factor: from a stored value to a printed one.
        digits: printed after the point.
        lower_is_better: True for losses.
    """

    name: str
    unit: str
    points: str
    factor: float
    digits: int
    lower_is_better: bool = False

    def printed(self, value: float) -> float:
        """Return the number printed in a table; it decides bold and ties."""
        return round(self.factor * value, self.digits) + 0.0

    def text(self, value: float, *, signed: bool = False) -> str:
        return f"{self.printed(value):{'+' if signed else ''}.{self.digits}f}"

    def written(self, value: float) -> float:
        """Return the number for a CSV file, rounded so that it does not depend on the order of summation."""
        return round(self.factor * value, 6) + 0.0

    def lead(self, difference: float) -> float:
        """Return a difference from another value with its sign positive if it is an improvement."""
        return -difference if self.lower_is_better else difference


PERCENT = Measure(name="scores", unit="percent", points="percentage points", factor=100, digits=1)
LOSSES = {
    metric: Measure(name="held-out loss", unit=unit, points=unit, factor=1, digits=4, lower_is_better=True)
    for metric, unit in (("nats_per_token", "nats a token"), ("bits_per_byte", "bits a byte"))
}


def measure_of(metric: str) -> Measure:
    """Return the measure of a metric: a loss, or else a share of the items in percent."""
    return LOSSES.get(metric, PERCENT)
