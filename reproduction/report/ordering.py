"""The paper's orderings against ours: which of two methods is ahead there, and which is ahead here.

At all scales but the paper's this is the only comparison with its numbers: a direction, never a difference.
"""

from dataclasses import dataclass
from itertools import combinations

from reproduction.report.cells import Filled, of_common_seeds, pair
from reproduction.report.floor import CHANCE, ZERO, floor_of

SAME, OPPOSITE, TIE, NOISE, PAPER_TIE, MISSING = (
    "same", "opposite", "tie here", "within noise", "tie in the paper", "missing",
)  # fmt: skip
AT_FLOOR = {CHANCE: "at chance", ZERO: "at zero"}
VERDICTS = (SAME, OPPOSITE, NOISE, TIE, *AT_FLOOR.values(), PAPER_TIE, MISSING)
PARAMS = "params_pct"


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """One pair of methods on one column.

    Args:
        base, column: the place; on `PARAMS` both values are counts, without an interval.
        ahead, behind: the methods by the paper's numbers, in the table's order for a tie.
        verdict: "same" or "opposite" if our 95 % interval of the paired difference excludes zero, "within noise" if it
            does not, "tie here" if our difference is exactly zero; "at chance" or "at zero" if a trained method of the
            base is there on this column (`reproduction.report.floor`).
        leaning: +1 if our difference has the paper's sign, -1 for the other, 0 for none, regardless of the interval.
    """

    base: str
    column: str
    ahead: str
    behind: str
    verdict: str
    leaning: int


def orderings(filled: Filled) -> list[Ordering]:
    """Return the orderings of all pairs of methods on the paper's columns and the share of trainable parameters."""
    grid, found = filled.grid, []
    for base in grid.bases:
        for column in [*(column.id for column in filled.columns if not column.beside), PARAMS]:
            printed = {m: grid.paper[base, m, column].value for m in grid.methods if (base, m, column) in grid.paper}
            for pair_of_methods in combinations(printed, 2):
                ahead, behind = sorted(pair_of_methods, key=lambda method: -printed[method])
                verdict, leaning = _verdict(filled, base, column, ahead=ahead, behind=behind)
                if printed[ahead] == printed[behind]:
                    verdict, leaning = PAPER_TIE, 0
                names = {"base": base, "column": column, "ahead": ahead, "behind": behind}
                found.append(Ordering(**names, verdict=verdict, leaning=leaning))
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
    cell, other = of_common_seeds(*cells)
    differences = pair(cell, other)
    difference = round(float(differences.mean()), 12)
    leaning = (difference > 0) - (difference < 0)
    if floor := floor_of(filled, base, cell.column):
        return AT_FLOOR[floor], leaning
    if not leaning:
        return TIE, 0
    low, high = cell.resampled(differences, over_seeds=max(cell.seeds, other.seeds) > 1)
    if low <= 0 <= high:
        return NOISE, leaning
    return (SAME if leaning > 0 else OPPOSITE), leaning
