"""How methods compare in the committed files of a table: a block of its rows, and the tests between its methods."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reproduction.report.documents import read_csv
from reproduction.report.measures import Measure, measure_of

BEST_RATES, PAPER_RATE = "llama3", "llama3_paper_rate"
"""The bases of Table 1's and Table 2's two blocks: each method at its own best learning rate, all at the paper's."""

SWEEPS = {"table7": "budgets", "table8": "clusters"}
"""Tables that sweep a number → the file in which all of their methods are compared with each other."""

LONGER, CONTROLS = "llama3_full", "llama3_2_3b"
"""The bases of longer training, and of the controls and Table 3."""

LOSS = "loss"
"""The column of the mean held-out loss over the sources."""

ONE_RUN = "one run each"
TOO_FEW = 2
"""Seeds of which an interval over seeds and items is far too narrow: they cannot show how far a third one would lie."""

AHEAD, LEVEL, BEHIND = VERDICTS = "ahead of", "level with", "behind"

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods in one column.

    Args:
        first, second, column, measure: what is compared.
        lead: how far the first is ahead, in percentage points or nats a token.
        low, high: the ends of its interval.
        seeds: that both have.
        agree: whether the same one is ahead under each seed.
        floor: "chance" or "zero" where nobody is called ahead, else empty.
    """

    first: str
    second: str
    column: str
    measure: Measure
    lead: float
    low: float
    high: float
    seeds: int
    agree: bool
    floor: str

    @property
    def verdict(self) -> str:
        """Where the first stands: level wherever zero lies inside the interval, the seeds do not agree, or the column
        is at chance or zero.
        """
        if self.floor or not self.agree or self.low <= 0 <= self.high:
            return LEVEL
        return AHEAD if self.low > 0 else BEHIND

    @property
    def reversed(self) -> "Pair":
        """The second against the first."""
        return replace(self, first=self.second, second=self.first, lead=-self.lead, low=-self.high, high=-self.low)

    @property
    def amount(self) -> str:
        """The distance and its interval, a signed difference where the two are level."""
        lead, low, high = self.lead, self.low, self.high
        if self.verdict == LEVEL:
            return f"({self._text(lead, '+')} [{self._text(low, '+')}, {self._text(high, '+')}])"
        low, high = sorted((abs(low), abs(high)))
        points = "" if self.measure.lower_is_better else " points"
        return f"by {self._text(abs(lead))}{points} [{self._text(low)}, {self._text(high)}]"

    def _text(self, value: float, sign: str = "") -> str:
        return f"{round(value, self.measure.digits) + 0.0:{sign}.{self.measure.digits}f}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One base of a table: its rows by method, and its `Pair`s by (first, second, column), either way round."""

    rows: Mapping[str, Row]
    pairs: Mapping[tuple[str, str, str], Pair]


def read_block(folder: Path, table: str, base: str) -> Block:
    """The block of a base in a reference's folder, with all pairs of a sweep; empty without its files.

    Raises `RecordError` where a file cannot be read.
    """
    every = read_csv(folder / "tables" / f"{SWEEPS[table]}.csv") if table in SWEEPS else []
    tests = [*every, *read_csv(folder / "significance" / f"{table}.csv")]
    pairs = [pair_of(test) for test in tests if test["base"] == base]
    return Block(
        rows={row["method"]: row for row in read_csv(folder / "tables" / f"{table}.csv") if row["base"] == base},
        pairs={(each.first, each.second, each.column): each for pair in pairs for each in (pair, pair.reversed)},
    )


def pair_of(test: Row) -> Pair:
    """The two methods of a row of significance/<table>.csv, or of a sweep's file of all pairs."""
    measure = measure_of(test["metric"])
    low, high = sorted(map(measure.lead, widest_interval(test)))
    return Pair(
        first=test["method"],
        second=test["reference"],
        column=test["column"],
        measure=measure,
        lead=measure.lead(float(test["difference"])),
        low=low,
        high=high,
        seeds=int(test["seeds"]),
        agree=test.get("seeds_ahead", "") in ("", "0", test["seeds"]),  # empty for one run
        floor=test.get("floor", ""),
    )


def widest_interval(test: Row) -> tuple[float, float]:
    """The ends of a difference's interval in such a row: over seeds and items where there are several seeds."""
    kind = "seeds_ci" if test["seeds_ci_low"] else "ci"
    return float(test[f"{kind}_low"]), float(test[f"{kind}_high"])


def runs(pairs: Iterable[Pair]) -> str:
    """How many runs a method has in these pairs: "one run each", "3 seeds", "2 to 3 seeds"."""
    seeds = sorted({pair.seeds for pair in pairs})
    if seeds == [1]:
        return ONE_RUN
    return f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"


def runs_and_intervals(pairs: Iterable[Pair]) -> str:
    """`runs`, and what so few of them mean for the intervals: "2 seeds, intervals too narrow"."""
    found = runs(pairs := list(pairs))
    if found == ONE_RUN:
        return f"{found}, intervals over items alone"
    return f"{found}, intervals too narrow" if min(pair.seeds for pair in pairs) == TOO_FEW else found
