"""Comparisons of methods in the committed files of a table: a block of its rows, and the tests between its methods."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reproduction.report.documents import read_csv
from reproduction.report.measures import Measure, measure_of

BEST_RATES, PAPER_RATE = "llama3", "llama3_paper_rate"
"""Bases of the two blocks of Tables 1 and 2: each method at its own best learning rate, all at the paper's."""

SWEEPS = {"table7": "budgets", "table8": "clusters"}
"""Sweep tables → the file that compares all of their methods with each other."""

LONGER, CONTROLS = "llama3_full", "llama3_2_3b"
"""Bases of longer training, and of the controls and Table 3."""

LOSS = "loss"
"""Column of the mean held-out loss over the sources."""

ONE_RUN = "one run each"
TOO_FEW = 2
"""Number of seeds for which an interval over seeds and items is far too narrow: two cannot show the spread."""

AHEAD, LEVEL, BEHIND = VERDICTS = "ahead of", "level with", "behind"

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods in one column.

    Args:
        first, second, column, measure: the comparison.
        lead: how far the first is ahead, in percentage points or nats per token.
        low, high: the ends of its interval.
        seeds: number of common seeds.
        agree: whether the same one is ahead for each seed.
        floor: "chance" or "zero" if no method is called ahead, else empty.
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
        """Result for the first method: level if the interval contains zero, the seeds disagree, or the column is at
        chance or zero.
        """
        if self.floor or not self.agree or self.low <= 0 <= self.high:
            return LEVEL
        return AHEAD if self.low > 0 else BEHIND

    @property
    def reversed(self) -> "Pair":
        """The second method against the first."""
        return replace(self, first=self.second, second=self.first, lead=-self.lead, low=-self.high, high=-self.low)

    @property
    def amount(self) -> str:
        """The distance and its interval; a signed difference if the two are level."""
        lead, low, high = self.lead, self.low, self.high
        if self.verdict == LEVEL:
            return f"({self._text(lead, '+')} [{self._text(low, '+')}, {self._text(high, '+')}])"
        low, high = sorted((abs(low), abs(high)))
        points = "" if self.measure.lower_is_better else " points"
        return f"by {self._text(abs(lead))}{points} [{self._text(low)}, {self._text(high)}]"

    @property
    def distance(self) -> str:
        """The distance without its sign and interval."""
        return self._text(abs(self.lead))

    @property
    def signed(self) -> str:
        """The lead with its sign."""
        return self._text(self.lead, "+")

    def _text(self, value: float, sign: str = "") -> str:
        return f"{round(value, self.measure.digits) + 0.0:{sign}.{self.measure.digits}f}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One base of a table: its rows by method, and its `Pair`s by (first, second, column) in both directions."""

    rows: Mapping[str, Row]
    pairs: Mapping[tuple[str, str, str], Pair]


def read_block(folder: Path, table: str, base: str) -> Block:
    """Return the block of a base in a reference's folder, with all pairs of a sweep; empty without its files.

    Raises `RecordError` if a file cannot be read.
    """
    every = read_csv(folder / "tables" / f"{SWEEPS[table]}.csv") if table in SWEEPS else []
    tests = [*every, *read_csv(folder / "significance" / f"{table}.csv")]
    pairs = [pair_of(test) for test in tests if test["base"] == base]
    return Block(
        rows={row["method"]: row for row in read_csv(folder / "tables" / f"{table}.csv") if row["base"] == base},
        pairs={(each.first, each.second, each.column): each for pair in pairs for each in (pair, pair.reversed)},
    )


def pair_of(test: Row) -> Pair:
    """Return the pair of a row of significance/<table>.csv, or of a sweep's file of all pairs."""
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
    """Return the ends of a difference's interval in such a row: over seeds and items if there are several seeds."""
    kind = "seeds_ci" if test["seeds_ci_low"] else "ci"
    return float(test[f"{kind}_low"]), float(test[f"{kind}_high"])


def runs(pairs: Iterable[Pair]) -> str:
    """Describe the number of runs per method: "one run each", "3 seeds", "2 to 3 seeds"."""
    seeds = sorted({pair.seeds for pair in pairs})
    if seeds == [1]:
        return ONE_RUN
    return f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"


def runs_and_intervals(pairs: Iterable[Pair]) -> str:
    """Describe `runs` and, for few of them, the intervals: "2 seeds, intervals too narrow"."""
    found = runs(pairs := list(pairs))
    if found == ONE_RUN:
        return f"{found}, intervals over items alone"
    return f"{found}, intervals too narrow" if min(pair.seeds for pair in pairs) == TOO_FEW else found
