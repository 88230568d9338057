"""What a real pre-trained model says: losses and scores of the small scale's committed reference, for expressions.

    l1 l2 l3 l7 l8 lc["idlora", "loss_alpaca"]    a held-out loss of ours (lc: the controls); lower is better
    s1 s2 s3 s7 s8 sc["idlora", "gsm8k"]          a score of ours; higher is better
    l1p s1p l2p s2p, ll sl                        Tables 1 and 2 at the paper's rates; Table 2's methods trained longer
    s l["idlora", …]                              in each block of a reading that is put `OVER` several

Both are compared by the interval of the paired difference over seeds and items. A value is known by its differences
from its table's reference, and in Tables 7 and 8 the mean loss ("loss") by those from every other method, so that every
comparison has an interval.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.report.audit.expressions import Comparison
from reproduction.report.audit.measured_values import NotMeasured
from reproduction.report.audit.quantities import Quantity
from reproduction.report.grid import SMALL
from reproduction.report.reference import reference_folder
from reproduction.report.standings import (
    AHEAD,
    BEHIND,
    BEST_RATES,
    CONTROLS,
    LONGER,
    LOSS,
    ONE_RUN,
    PAPER_RATE,
    Block,
    Pair,
    read_block,
)

TABLES = {
    "1": ("table1", BEST_RATES),
    "1p": ("table1", PAPER_RATE),
    "2": ("table2", BEST_RATES),
    "2p": ("table2", PAPER_RATE),
    "3": ("table3", CONTROLS),
    "7": ("table7", BEST_RATES),
    "8": ("table8", CONTROLS),
    "l": ("table_longer", LONGER),
    "c": ("table_controls", CONTROLS),
}
"""What follows the l or s of a name, and the table and base behind it."""

OVER = {
    "several": {"at each method's best rate": "2", "at the paper's rate": "2p", "after two epochs": "l"},
    "single": {"at each method's best rate": "1", "at the paper's rates": "1p"},
}
"""Methods trained on several tasks and on single ones: the blocks that a reading is put to, each in words. The first
decides.
"""


@dataclass(frozen=True)
class Value:
    """A method's loss or score in one column of a block, known by how it stands to others."""

    name: str
    block: Block
    method: str
    column: str

    def compare(self, symbol: str, other: Any) -> bool | None:
        """``self symbol other``; None where zero lies inside the interval, so that a tie is never told, and where the
        column is at chance or zero, so that nobody is called ahead.

        Raises `NotMeasured`, and TypeError for anything but a value of the same block and column.
        """
        pair = self.pair(other)
        sign = pair.measure.lead({AHEAD: 1, BEHIND: -1}.get(pair.verdict, 0))
        if symbol == "==":
            return False if sign else None
        wanted = 1 if symbol.startswith(">") else -1
        return {wanted: True, -wanted: False, 0: None}[sign]

    def within(self, other: Any, margin: Quantity) -> bool | None:
        """Whether a score is less than ``margin`` points behind another: True where the whole interval of the
        difference says so, False where the whole interval says the opposite, None where it holds both or the column is
        at chance or zero.

        Raises as `compare` does, and TypeError for a loss, which has no margin.
        """
        pair = self.pair(other)
        if pair.measure.lower_is_better:
            raise TypeError(f"{self} is a loss; within() has a margin for scores alone")
        if pair.floor or pair.low <= -margin.value <= pair.high:
            return None
        return pair.low > -margin.value

    @property
    def is_loss(self) -> bool:
        """Whether it is a held-out loss. The column says so."""
        return self.column.split("_")[0] == LOSS

    @property
    def at_paper_rate(self) -> bool:
        """Whether the block was trained at the paper's rates."""
        return self.name.endswith(PAPER_RATE)

    def pair(self, other: Any) -> Pair:
        """The two as they were tested. Raises as `compare` does."""
        if not isinstance(other, Value) or (self.name, self.column) != (other.name, other.column):
            raise TypeError(f"{self} is compared with a value of its own table and column alone, not with {other}")
        pair = self.block.pairs.get((self.method, other.method, self.column))
        if pair is None:
            raise NotMeasured(f"{self} against {other.method}")
        return pair

    def __str__(self) -> str:
        return f"{self.name} {self.column}: {self.method}"


@dataclass(frozen=True)
class Values:
    """A block's losses and scores by (method, column). What it lacks shows when two are compared."""

    name: str
    block: Block

    def __getitem__(self, key: tuple[str, str]) -> Value:
        return Value(self.name, self.block, *key)


def real_names(results: Path) -> dict[str, Any]:
    """The names above, from results/reference/small: significance/<table>.csv and the sweeps' files of all pairs."""
    folder = reference_folder(results, SMALL)
    names: dict[str, Any] = {}
    for name, (table, base) in TABLES.items():
        values = Values(table if base != PAPER_RATE else f"{table} {base}", read_block(folder, table, base))
        names |= {f"l{name}": values, f"s{name}": values}
    return names


def with_runs(reading: str, comparisons: Iterable[Comparison]) -> str:
    """The reading, and that it is of one run each where every loss and score that it compares is."""
    seeds = {each.left.pair(each.right).seeds for each in comparisons if isinstance(each.left, Value)}
    return f"{reading} ({ONE_RUN})" if seeds == {1} else reading
