"""The † of Tables 1 and 2 against every p value that a paired test of one run each could have given."""

from collections.abc import Iterator, Mapping
from typing import Any

from reproduction.report.audit.findings import Finding
from reproduction.report.audit.grim import KNOWN, REFUSAL_ITEMS, possible
from reproduction.report.audit.pairings import ALPHA, TESTS, Extremes, extremes
from reproduction.report.audit.quantities import Quantity
from reproduction.report.significance import smallest_p

CHECK, RUNS_CHECK = "† against any pairing", "† against the number of runs"
REFERENCE = "lora"
TABLES = (1, 2)
IMPOSSIBLE, DUE, ALLOWED = "† impossible", "† due", "† possible"
MISSING, OPEN, OUT_OF_REACH = "† missing", "no †, open", "no †, out of reach"
BEHIND, TIE = "behind", "equal as printed"
MOST_RUNS = 8


def findings(paper: Mapping[str, Any]) -> list[Finding]:
    """Every method against LoRA in the columns of right-or-wrong items, by both tests, one- and two-sided.

    pass@k is left out: an item's score there is an average over samples, and its differences have no bounds.
    """
    return [
        _tested(cell, lora, _sizes(cell, lora, paper), test=test, sides=sides)
        for number in TABLES
        for cell, lora in _pairs(paper[f"t{number}"].cells)
        for test in TESTS
        for sides in (2, 1)
        if sides == 2 or cell.value > lora.value  # a one-sided test asks about improvement
    ]


def over_runs() -> list[Finding]:
    """Were the unit a run (a seed) and not an item: the smallest two-sided p of a signed-rank test over n of them."""
    return [
        Finding(
            check=RUNS_CHECK,
            place="Tables 1 and 2",
            printed="†",
            assumption=f"Wilcoxon signed-rank over {n} paired runs, two-sided",
            quantity="smallest p",
            low=_digits(smallest_p(n)),
            high=_digits(smallest_p(n)),
            finding=f"{ALLOWED if smallest_p(n) < ALPHA else IMPOSSIBLE}: all {n} of one sign",
        )
        for n in range(2, MOST_RUNS + 1)
    ]


def mark(cell: Quantity, found: Extremes, items: str) -> str:
    """What the † of a cell, or its absence, is in the light of the extremes."""
    at_most = f"p < {ALPHA:g} needs at most {found.most_differing} of {items} items to differ"
    if cell.dagger:
        if found.smallest >= ALPHA:
            return f"{IMPOSSIBLE}: no pairing gives p < {ALPHA:g}"
        return f"{DUE}: every pairing gives p < {ALPHA:g}" if found.largest < ALPHA else f"{ALLOWED}: {at_most}"
    if found.ahead < 0:
        extent = "every pairing gives p <" if found.largest < ALPHA else "some pairing gives p ≥"
        return f"{BEHIND}: {extent} {ALPHA:g}"
    if found.ahead == 0:
        return f"{TIE}: the counts may be equal"
    if found.largest < ALPHA:
        return f"{MISSING}: every pairing gives p < {ALPHA:g}"
    return f"{OUT_OF_REACH}: no pairing gives p < {ALPHA:g}" if found.smallest >= ALPHA else f"{OPEN}: {at_most}"


def _pairs(cells: Mapping[tuple[str, str, str], Quantity]) -> Iterator[tuple[Quantity, Quantity]]:
    for (base, method, column), cell in cells.items():
        if method != REFERENCE and column in (*KNOWN, "hexphi"):
            yield cell, cells[base, REFERENCE, column]


def _sizes(cell: Quantity, lora: Quantity, paper: Mapping[str, Any]) -> list[int]:
    """The number of items where it is known; else every plausible one at which both rates are counts."""
    if (column := cell.cell.column) in KNOWN:
        return [int(paper["fact"][KNOWN[column],].value)]
    return [n for n in REFUSAL_ITEMS if possible(cell, n) and possible(lora, n)]


def _tested(cell: Quantity, lora: Quantity, sizes: list[int], *, test: str, sides: int) -> Finding:
    each = [extremes(cell, lora, n, test=test, sides=sides) for n in sizes]
    whole = Extremes(
        smallest=min(found.smallest for found in each),
        largest=max(found.largest for found in each),
        most_differing=max((found.most_differing for found in each if found.most_differing is not None), default=None),
        ahead=min((found.ahead for found in each), key=abs),
    )
    span = f"n prompts, any of the {len(sizes)} n from {REFUSAL_ITEMS[0]} to {REFUSAL_ITEMS[-1]} that give both rates"
    items = f"{sizes[0]:,}" if len(sizes) == 1 else "n"
    over = f"{items} items" if len(sizes) == 1 else span
    return Finding(
        check=CHECK,
        place=str(cell.cell),
        printed=f"{cell}{'†' if cell.dagger else ''} against {lora}",
        assumption=f"one run each over {over}; {test}, {'one' if sides == 1 else 'two'}-sided",
        quantity="p",
        low=_digits(whole.smallest),
        high=_digits(whole.largest),
        finding=mark(cell, whole, items),
    )


def _digits(p: float) -> str:
    return f"{p:.3g}"
