"""Paired tests of methods against the reference on the same items, with effect sizes and detectable differences.

Unit: an item (a question, a prompt, a problem's pass@k estimate, a row's loss), never a sample. d_i = method -
reference on item i, paired by item id and seed; several seeds are averaged within the item first. The tests with unit
"seed" use each seed's mean difference.

The † is the paper's: Wilcoxon signed-rank, two-sided, p raw, below alpha and the method ahead.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from reproduction.report.cells import Cell, Filled, of_common_seeds, pair
from reproduction.report.floor import floor_of
from reproduction.report.measures import Measure, measure_of

ZERO_METHOD = "wilcox"
"""Zero differences are dropped before ranking (Wilcoxon 1945); scipy's default and so presumably the paper's."""

EXACT_UP_TO = 50
"""Number of non-zero differences up to which the null distribution is exact; above, the normal approximation."""

POWER = 0.80


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method against the reference on one column; values and differences are fractions or losses here.

    Args:
        value, reference_value, difference: means; the difference is method minus reference.
        ci_low, ci_high: over items; ``seeds_ci`` over seeds and items, None with one seed.
        seeds_p: of the test with seeds as units, None with one seed; ``seeds_ahead`` counts those with it ahead.
        nonzero: items that differ; ``wins`` and ``losses`` count those with the method ahead and behind.
        mcnemar_p: None if items are not 0/1.
        holm_p: None outside of the ``family``.
        detectable: None if these items cannot reach alpha at all, which ``reach`` then states; it is empty otherwise.
        floor: "chance" or "zero" if a trained method of the base is there on this column, which excludes a †.
        scope: whether the items support claims on checkpoints or on methods, and the power of a test over the seeds.
    """

    base: str
    method: str
    reference: str
    column: str
    benchmark: str
    metric: str
    unit: str
    items: int
    samples: int
    seeds: int
    value: float
    reference_value: float
    difference: float
    ci_low: float
    ci_high: float
    seeds_ci: tuple[float, float] | None
    seeds_p: float | None
    seeds_ahead: int
    rank_biserial: float
    nonzero: int
    wins: int
    losses: int
    wilcoxon_statistic: float
    wilcoxon_p: float
    wilcoxon_method: str
    zero_method: str
    mcnemar_p: float | None
    holm_p: float | None
    family: str
    family_size: int
    smallest_p: float
    detectable: float | None
    floor: str
    dagger: bool
    reach: str
    scope: str

    @property
    def measure(self) -> Measure:
        return measure_of(self.metric)


def compare_all(filled: Filled) -> list[Comparison]:
    """Compare every method with its reference on all common columns, with Holm over each family: all methods x all
    columns of one measure for one base. Columns absent from the paper's table belong to no family.

    Raises `GridError` if two runs did not see the same items.
    """
    grid, comparisons = filled.grid, []
    against = grid.reference if isinstance(grid.reference, str) else "each one's own reference"
    for base in grid.bases:
        families: dict[str, list[int]] = {}
        for column, method in itertools.product(filled.columns, grid.methods):
            cell = filled.cells.get((base, method, column.id))
            reference = filled.cells.get((base, grid.reference_of(method), column.id))
            if cell is None or reference is None:
                continue
            found = compare(cell, reference, alpha=grid.alpha)
            floor = floor_of(filled, base, column)
            if not column.beside:
                families.setdefault(found.measure.name, []).append(len(comparisons))
            dagger = found.dagger and not column.beside and not floor
            comparisons.append(replace(found, family="beside the table", floor=floor, dagger=dagger))
        for name, members in families.items():
            own = {"family": f"{grid.table} {base}: {name}, methods x columns against {against}"}
            for at, p in zip(members, holm([comparisons[at].wilcoxon_p for at in members]), strict=True):
                comparisons[at] = replace(comparisons[at], holm_p=p, family_size=len(members), **own)
    return comparisons


def compare(cell: Cell, reference: Cell, *, alpha: float) -> Comparison:
    """Test one cell against the reference's over their common seeds; `Comparison` documents the fields."""
    cell, reference = of_common_seeds(cell, reference)
    by_seed = pair(cell, reference)
    several = max(cell.seeds, reference.seeds) > 1
    of_seeds = _clean(by_seed.mean(axis=1))
    differences = _clean(by_seed.mean(axis=0))
    nonzero = int(np.count_nonzero(differences))
    statistic, p, method = wilcoxon(differences)
    binary = all(np.isin(side.values.mean(axis=0), (0.0, 1.0)).all() for side in (cell, reference))
    lead = cell.measure.lead
    low, high = cell.resampled(by_seed, over_seeds=False)
    unreachable = f"cannot reach {alpha:g} with {nonzero} differing item{'' if nonzero == 1 else 's'}"
    difference = float(differences.mean())
    return Comparison(
        base=cell.base,
        method=cell.method,
        reference=reference.method,
        column=cell.column.id,
        benchmark=cell.column.benchmark,
        metric=cell.metric,
        unit=cell.unit,
        items=len(differences),
        samples=cell.samples,
        seeds=len(by_seed),
        value=cell.mean,
        reference_value=reference.mean,
        difference=difference,
        ci_low=low,
        ci_high=high,
        seeds_ci=cell.resampled(by_seed, over_seeds=True) if several else None,
        seeds_p=wilcoxon(of_seeds)[1] if several else None,
        seeds_ahead=int((lead(of_seeds) > 0).sum()),
        rank_biserial=rank_biserial(differences),
        nonzero=nonzero,
        wins=int((lead(differences) > 0).sum()),
        losses=int((lead(differences) < 0).sum()),
        wilcoxon_statistic=statistic,
        wilcoxon_p=p,
        wilcoxon_method=method,
        zero_method=ZERO_METHOD,
        mcnemar_p=mcnemar(differences) if binary else None,
        holm_p=None,
        family="",
        family_size=0,
        smallest_p=smallest_p(nonzero),
        detectable=detectable_difference(differences, alpha=alpha),
        floor="",
        dagger=p < alpha and lead(difference) > 0 and lead(rank_biserial(differences)) > 0,
        reach=unreachable if smallest_p(nonzero) >= alpha else "",
        scope=_scope(len(by_seed) if several else 1, alpha=alpha),
    )


def wilcoxon(differences: ArrayLike) -> tuple[float, float, str]:
    """Return (statistic min(W+, W-), two-sided p, method) of the signed-rank test on d (n,), no zeros, midranks for
    ties.

    "exact" enumerates the null distribution given the midranks, up to `EXACT_UP_TO` non-zero differences (scipy's exact
    method does not support ties, and 0/1 items are all ties). "approx" is scipy's normal approximation with tie
    correction, without continuity correction. Zeros alone give p = 1, "all differences zero".
    """
    nonzero = _nonzero(differences)
    if not len(nonzero):
        return 0.0, 1.0, "all differences zero"
    ranks = scipy.stats.rankdata(np.abs(nonzero))
    positive = float(ranks[nonzero > 0].sum())
    statistic = min(positive, float(ranks.sum()) - positive)
    if len(nonzero) > EXACT_UP_TO:
        test = scipy.stats.wilcoxon(nonzero, zero_method=ZERO_METHOD, correction=False, method="asymptotic")
        return statistic, float(test.pvalue), "approx"
    tail = _rank_sum(ranks, 0.5)[: round(2 * statistic) + 1].sum()
    return statistic, float(min(1.0, 2 * tail)), "exact"


def mcnemar(differences: ArrayLike) -> float:
    """Return the exact two-sided McNemar p: a binomial test of wins among the items that differ; 1 if none does."""
    nonzero = _nonzero(differences)
    return float(scipy.stats.binomtest(int((nonzero > 0).sum()), len(nonzero)).pvalue) if len(nonzero) else 1.0


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation (W+ - W-)/(W+ + W-) in [-1, 1], zeros dropped; 0 if none differs."""
    nonzero = _nonzero(differences)
    ranks = scipy.stats.rankdata(np.abs(nonzero))
    return float((ranks * np.sign(nonzero)).sum() / ranks.sum()) if len(nonzero) else 0.0


def holm(ps: list[float]) -> list[float]:
    """Return Holm's step-down adjusted p values, in the order given (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    adjusted, worst = [0.0] * len(ps), 0.0
    for step, index in enumerate(order):
        worst = max(worst, min(1.0, (len(ps) - step) * ps[index]))
        adjusted[index] = worst
    return adjusted


def smallest_p(units: int) -> float:
    """Return the smallest two-sided p of that many differing units (items, seeds): all of one sign, 2 · 2^-units."""
    return min(1.0, 2.0 ** (1 - units))


def seeds_sentence(seeds: int, *, alpha: float) -> str:
    """State the significance that a test with that many seeds as units can reach."""
    if (p := smallest_p(seeds)) < alpha:
        return f"with the seed as unit the smallest two-sided p over {seeds} seeds is {p:.3g}"
    return f"no test over {seeds} seeds can reach {alpha:g} with the seed as unit: the smallest two-sided p is {p:.3g}"


def detectable_difference(differences: ArrayLike, *, alpha: float) -> float | None:
    """Return the smallest true mean difference that the Wilcoxon test detects with `POWER` on items like these.

    The items that differ and the sizes of their differences are fixed, and each sign is + with chance π. The true
    difference is (2π - 1) mean |d|, and π is raised until W+ is significant with `POWER`: exactly if the test is exact,
    else by the normal approximation. None if even differences all of one sign would not reach alpha.
    """
    nonzero = _nonzero(differences)
    if smallest_p(len(nonzero)) >= alpha:
        return None
    ranks = scipy.stats.rankdata(np.abs(nonzero))

    if len(nonzero) <= EXACT_UP_TO:
        beyond = 2 * np.cumsum(_rank_sum(ranks, 0.5)[::-1])[::-1]  # two-sided p of each 2 W+ in the upper half
        critical = int(np.argmax(beyond < alpha))

        def power(chance: float) -> float:
            return float(_rank_sum(ranks, chance)[critical:].sum())
    else:
        total, spread = ranks.sum(), np.sqrt((ranks**2).sum())
        threshold = total / 2 + scipy.stats.norm.isf(alpha / 2) * spread / 2

        def power(chance: float) -> float:
            return float(scipy.stats.norm.sf((threshold - chance * total) / (spread * np.sqrt(chance * (1 - chance)))))

    chance = scipy.optimize.brentq(lambda chance: power(chance) - POWER, 0.5, 1 - 1e-12)
    return float((2 * chance - 1) * np.abs(np.asarray(differences, dtype=float)).mean())


def _rank_sum(ranks: NDArray[np.float64], chance: float) -> NDArray[np.float64]:
    """Return P(2 W+ = w), w = 0 … 2 Σ ranks, if a rank counts with ``chance``; doubled, since midranks are halves."""
    law = np.ones(1)
    for rank in np.rint(2 * ranks).astype(int):
        longer = np.zeros(len(law) + rank)
        longer[: len(law)] += law * (1 - chance)
        longer[rank:] += law * chance
        law = longer
    return law


def p_text(p: float) -> str:
    """Format a p value with three digits, "< 0.001" below."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _scope(seeds: int, *, alpha: float) -> str:
    if seeds == 1:
        return "one run each: these items say that two checkpoints differ, not that two methods do"
    return (
        f"items averaged over {seeds} seeds; the interval over seeds and items speaks of methods; "
        f"{seeds_sentence(seeds, alpha=alpha)}"
    )


def _nonzero(differences: ArrayLike) -> NDArray[np.float64]:
    cleaned = _clean(differences)
    return cleaned[cleaned != 0]


def _clean(differences: ArrayLike) -> NDArray[np.float64]:
    """Round at 1e-12, so that differences equal but for float error are ties, and 0.1 + 0.2 - 0.3 is a zero."""
    return np.round(np.asarray(differences, dtype=float), 12) + 0.0
