"""What two printed rates say about a paired test when nobody printed the pairs.

Two runs answer the same n items, each once, right or wrong. k_a and k_b of them are right, D = k_a - k_b. The items
that differ ("discordant") are b wins and c losses, b - c = D, m = b + c of them; the rates fix D and leave m open:

    |D| ≤ m ≤ 2 min(k_a, n - k_b) - D      (for D ≥ 0), in steps of two

For 0/1 items McNemar's test is the sign test of b against c, and Wilcoxon's signed-rank test with zeros dropped is its
normal approximation, z = D/√m, since all ranks are tied. Both have p growing in m, so the two ends of m are the
smallest and the largest p that any pairing could give. Sources: McNemar 1947; Wilcoxon 1945; Pratt 1959 on ties.
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
    """What any pairing could give. ``most_differing`` is the largest m with p < alpha, None where none has.

    ``ahead`` is +1 where the first rate is higher for every pair of counts that round to the printed rates, -1 where
    lower, 0 where the printing leaves it open.
    """

    smallest: float
    largest: float
    most_differing: int | None
    ahead: int


def counts(rate: Quantity, items: int) -> range:
    """The numbers of right answers of ``items`` that a printed rate in percent stands for; empty where none is."""
    return range(max(0, math.ceil(rate.low * items / 100)), min(items, math.floor(rate.high * items / 100)) + 1)


def p_value(test: str, difference: int, differing: int, *, sides: int = 2) -> float:
    """p of ``differing`` 0/1 items whose wins exceed the losses by ``difference``; one-sided in its direction."""
    if not differing:
        return 1.0
    size = abs(difference)
    if test == SIGN:
        tail = scipy.special.bdtrc((differing + size) // 2 - 1, differing, 0.5) if size else 1.0
    else:
        tail = scipy.special.ndtr(-size / math.sqrt(differing))
    return float(min(1.0, sides * tail))


def extremes(first: Quantity, second: Quantity, items: int, *, test: str = SIGN, sides: int = 2) -> Extremes:
    """Over every pair of counts that the two printed rates stand for, and every pairing of their answers.

    Raises ValueError where a rate is no count of ``items`` at all.
    """
    return _extremes(counts(first, items), counts(second, items), items, test=test, sides=sides)


@lru_cache(maxsize=4096)  # the expressions and the forensics ask the same
def _extremes(mine: range, theirs: range, items: int, *, test: str, sides: int) -> Extremes:
    if not mine or not theirs:
        raise ValueError(f"a printed rate is no count of {items} items")

    def p(k_a: int, k_b: int, differing: int) -> float:
        return p_value(test, k_a - k_b, differing, sides=sides)

    # The smallest p, and the most items that may differ, belong to the widest difference; the largest p may not.
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
    """How many items can differ, given the counts."""
    high, low = max(k_a, k_b), min(k_a, k_b)
    size = high - low
    return range(size, 2 * min(high, items - low) - size + 1, 2)


def smallest_p(first: Quantity, second: Quantity, items: Quantity) -> Quantity:
    """The smallest two-sided p of any pairing, for the expressions."""
    return exact(extremes(first, second, int(items.value), test=WILCOXON).smallest)


def largest_p(first: Quantity, second: Quantity, items: Quantity) -> Quantity:
    """The largest two-sided p of any pairing, for the expressions."""
    return exact(extremes(first, second, int(items.value), test=WILCOXON).largest)
