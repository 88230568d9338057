"""Bounds on a paired test when only the two rates are printed.

Two runs answer the same n items, each once, right or wrong. k_a and k_b of them are right, D = k_a - k_b. The differing
("discordant") items are b wins and c losses, b - c = D, b + c = m. The rates determine D but not m:

    |D| ≤ m ≤ 2 min(k_a, n - k_b) - D      (for D ≥ 0), in steps of two

For 0/1 items McNemar's test is the sign test of b against c. Wilcoxon's signed-rank test with zeros dropped is its
normal approximation, z = D/√m, since all ranks are tied. Both p values grow with m, so the two ends of m give the
smallest and the largest p of any pairing. Sources: McNemar 1947; Wilcoxon 1945; Pratt 1959 on ties.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import scipy

from reproduction.report.audit.quantities import Quantity, exact

SIGN, WILCOXON = "exact sign test (McNemar)", "Wilcoxon signed-rank, normal approximation"
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Extremes:
    """Extremes over all pairings. ``most_differing`` is the largest m with p < alpha, None if there is none.

    ``ahead`` is +1 if the first rate is higher for every pair of counts that round to the printed rates, -1 if lower, 0
    if the rounding leaves it open.
    """

    smallest: float
    largest: float
    most_differing: int | None
    ahead: int


def counts(rate: Quantity, items: int) -> range:
    """Return the numbers of right answers among ``items`` that round to a printed rate in percent; may be empty."""
    return range(max(0, math.ceil(rate.low * items / 100)), min(items, math.floor(rate.high * items / 100)) + 1)


def p_value(test: str, difference: int, differing: int, *, sides: int = 2) -> float:
    """Return p of ``differing`` 0/1 items with ``difference`` more wins than losses; one-sided in its direction."""
    if not differing:
        return 1.0
    size = abs(difference)
    if test == SIGN:
        tail = scipy.special.bdtrc((differing + size) // 2 - 1, differing, 0.5) if size else 1.0
    else:
        tail = scipy.special.ndtr(-size / math.sqrt(differing))
    return float(min(1.0, sides * tail))


def extremes(first: Quantity, second: Quantity, items: int, *, test: str = SIGN, sides: int = 2) -> Extremes:
    """Return the extremes over all pairs of counts that round to the printed rates, and all pairings of their answers.

    Raises ValueError if a rate is no count of ``items``.
    """
    return _extremes(counts(first, items), counts(second, items), items, test=test, sides=sides)


@lru_cache(maxsize=4096)  # the expressions and the forensics call it with the same arguments
def _extremes(mine: range, theirs: range, items: int, *, test: str, sides: int) -> Extremes:
    if not mine or not theirs:
        raise ValueError(f"a printed rate is no count of {items} items")

    def p(k_a: int, k_b: int, differing: int) -> float:
        return p_value(test, k_a - k_b, differing, sides=sides)

    # The widest difference gives the smallest p and the most differing items, but not always the largest p.
    corners = [(k_a, k_b) for k_a in (mine[0], mine[-1]) for k_b in (theirs[0], theirs[-1])]
    widest = max(corners, key=lambda pair: abs(pair[0] - pair[1]))
    possible = _differing(*widest, items)
    below = bisect_left(possible, ALPHA, key=lambda differing: p(*widest, differing))
    return Extremes(
        smallest=p(*widest, possible[0]),
        largest=max(p(k_a, k_b, _differing(k_a, k_b, items)[-1]) for k_a in mine for k_b in theirs),
        most_differing=possible[below - 1] if below else None,
        ahead=(mine[0] > theirs[-1]) - (mine[-1] < theirs[0]),
    )


def _differing(k_a: int, k_b: int, items: int) -> range:
    """Return the possible numbers of differing items for the given counts."""
    high, low = max(k_a, k_b), min(k_a, k_b)
    size = high - low
    return range(size, 2 * min(high, items - low) - size + 1, 2)


def smallest_p(first: Quantity, second: Quantity, items: Quantity) -> Quantity:
    """Return the smallest two-sided p of any pairing, for expressions."""
    return exact(extremes(first, second, int(items.value), test=WILCOXON).smallest)


def largest_p(first: Quantity, second: Quantity, items: Quantity) -> Quantity:
    """Return the largest two-sided p of any pairing, for expressions."""
    return exact(extremes(first, second, int(items.value), test=WILCOXON).largest)
