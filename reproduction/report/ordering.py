"""The paper's orderings against ours: for two methods, who is ahead there, and who is ahead here.

At any scale but the paper's this is the only comparison with its numbers: a direction, never a difference.
"""

from dataclasses import dataclass
from itertools import combinations

from reproduction.report.cells import Cell, Filled, of_common_seeds, pair
from reproduction.report.floor import CHANCE, ZERO, floor_of

SAME, OPPOSITE, TIE, NOISE, PAPER_TIE, MISSING = (
    "same", "opposite", "tie here", "within noise", "tie in the paper", "missing",
)  # fmt: skip
AT_FLOOR = {CHANCE: "at chance", ZERO: "at zero"}
VERDICTS = (SAME, OPPOSITE, NOISE, TIE, *AT_FLOOR.values(), PAPER_TIE, MISSING)
PARAMS = "params_pct"


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """One pair of methods on one column. ``ahead`` is the method that the paper has ahead (the first one in a tie).

    ``verdict``: "same" or "opposite" where our 95 % interval of the paired difference excludes zero, "within noise"
    where it does not, "tie here" where ours is exactly zero; whatever the difference, "at chance" or "at zero" where a
    trained method of the base is there on this column (`reproduction.report.floor`). ``leaning`` is the sign of ours in
    the paper's direction (+1 same, -1 opposite, 0 none), whatever the interval says. On `PARAMS` both are counts,
    without an interval.
    """

    base: str
    column: str
    ahead: str
    behind: str
    verdict: str
    leaning: int


def orderings(filled: Filled) -> list[Ordering]:
    """Every pair of methods on every column that the paper prints, and on the share of trainable parameters."""
    grid, found = filled.grid, []
    for base in grid.bases:
        for column in [*(column.id for column in filled.columns if not column.beside), PARAMS]:
            for pair_of_methods in combinations(grid.methods, 2):
                numbers = [grid.paper.get((base, method, column)) for method in pair_of_methods]
                if None in numbers:
                    continue
                (first, second), (a, b) = pair_of_methods, (number.value for number in numbers)
                if b > a:
                    first, second = second, first
                verdict, leaning = _verdict(filled, base, column, ahead=first, behind=second)
                found.append(
                    Ordering(
                        base=base,
                        column=column,
                        ahead=first,
                        behind=second,
                        verdict=PAPER_TIE if a == b else verdict,
                        leaning=0 if a == b else leaning,
                    )
                )
    return found


def _verdict(filled: Filled, base: str, column: str, *, ahead: str, behind: str) -> tuple[str, int]:
    if column == PARAMS:
        ours, theirs = (filled.parameters(base, method, "params_pct_paper") for method in (ahead, behind))
        if not ours or not theirs:
            return MISSING, 0
        low, high = ours[0] - theirs[-1], ours[-1] - theirs[0]
        sign = (low > 0) - (high < 0)
        return {1: SAME, -1: OPPOSITE, 0: TIE}[sign], sign
    cells = [filled.cells.get((base, method, column)) for method in (ahead, behind)]
    if None in cells:
        return MISSING, 0
    difference, low, high = _difference(*cells)
    leaning = (difference > 0) - (difference < 0)
    if floor := floor_of(filled, base, cells[0].column):
        return AT_FLOOR[floor], leaning
    if not leaning:
        return TIE, 0
    if low <= 0 <= high:
        return NOISE, leaning
    return (SAME if leaning > 0 else OPPOSITE), leaning


def _difference(cell: Cell, other: Cell) -> tuple[float, float, float]:
    cell, other = of_common_seeds(cell, other)
    by_seed = pair(cell, other)
    several = max(cell.seeds, other.seeds) > 1
    low, high = cell.resampled(by_seed, over_seeds=several)
    return round(float(by_seed.mean()), 12), low, high
