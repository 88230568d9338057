"""How a metric is counted and printed: percent of items, or a loss in nats or bits. One place knows which is which."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What the numbers of a metric mean.

    Attributes:
        name: of the group of columns that share it, and of a Holm family.
        unit: of a value.
        points: of a difference between two values.
        factor: what a stored value is multiplied with to be printed.
        digits: after the point, in print.
        lower_is_better: who is ahead has the lower value.
    """

    name: str
    unit: str
    points: str
    factor: float
    digits: int
    lower_is_better: bool = False

    def printed(self, value: float) -> float:
        """As a table prints it; bold and ties are judged on this, since it is what a reader sees."""
        return round(self.factor * value, self.digits) + 0.0

    def text(self, value: float, *, signed: bool = False) -> str:
        """The printed value as text."""
        return f"{self.printed(value):{'+' if signed else ''}.{self.digits}f}"

    def written(self, value: float) -> float:
        """As a CSV holds it: rounded so that sums in another order print the same."""
        return round(self.factor * value, 6) + 0.0

    def lead(self, difference: float) -> float:
        """A difference from another value, positive where it means being ahead."""
        return -difference if self.lower_is_better else difference


PERCENT = Measure(name="scores", unit="percent", points="percentage points", factor=100, digits=1)
LOSSES = {
    metric: Measure(name="held-out loss", unit=unit, points=unit, factor=1, digits=4, lower_is_better=True)
    for metric, unit in (("nats_per_token", "nats a token"), ("bits_per_byte", "bits a byte"))
}


def measure_of(metric: str) -> Measure:
    """The measure of a metric; a name that is no loss's is a share of the items, in percent."""
    return LOSSES.get(metric, PERCENT)
