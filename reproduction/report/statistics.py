"""The tests of a table as a file and as sentences: effect and interval first, then p, then what n could have shown."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reproduction.report.cells import Filled
from reproduction.report.collect import write_csv
from reproduction.report.ordering import AT_FLOOR
from reproduction.report.significance import EXACT_UP_TO, POWER, ZERO_METHOD, Comparison, compare_all, p_text

COLUMNS = (
    "base", "base_label", "method", "reference", "column", "benchmark", "metric", "measure", "unit", "items",
    "samples", "seeds",
    "value", "reference_value", "difference", "ci_low", "ci_high", "seeds_ci_low", "seeds_ci_high", "seeds_p",
    "seeds_ahead", "rank_biserial", "nonzero", "wins", "losses",
    "wilcoxon_statistic", "wilcoxon_p", "wilcoxon_method", "zero_method", "mcnemar_p", "holm_p", "family",
    "family_size", "smallest_p", "detectable_difference", "floor", "dagger", "note",
)  # fmt: skip


def write_significance(
    filled: Filled, out: Path, comparisons: Sequence[Comparison] | None = None
) -> Sequence[Comparison]:
    """Test every cell against the reference and write ``out`` (CSV; values and differences in the unit that
    ``measure`` names, p rounded to six significant digits). Returns the comparisons; those that a table has made
    already are taken from it, since their bootstraps are most of a report's time. An empty cell has no test and no row.
    """
    comparisons = compare_all(filled) if comparisons is None else comparisons
    write_csv(out, COLUMNS, test_rows(filled, comparisons))
    return comparisons


def test_rows(filled: Filled, comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """The rows of the file, one for each comparison."""
    return [_row(each, filled) for each in comparisons]


def summary(filled: Filled, comparisons: Iterable[Comparison]) -> str:
    """The same as text for a terminal, base by base and column by column."""
    grid, comparisons = filled.grid, list(comparisons)
    labels = {method: grid.label(method, filled.scale) for method in grid.methods}
    one = labels[grid.reference] if isinstance(grid.reference, str) else "its reference"
    lines = [
        f"{grid.table} at scale {filled.scale}: every method against {one}, paired by item",
        "",
        f"Test: Wilcoxon signed-rank, two-sided, raw; zero differences dropped ({ZERO_METHOD!r}); exact (ties as "
        f"midranks) up to {EXACT_UP_TO} differing items, normal approximation above.",
        f"†: p < {grid.alpha:g} and ahead of {one}. Holm's families: methods x columns of "
        "one base, scores and held-out losses apart.",
        f"detectable: the smallest true difference seen with {POWER:.0%} power when as many items differ as do here.",
    ]
    for base in grid.bases:
        for column in filled.columns:
            rows = [each for each in comparisons if (each.base, each.column) == (base, column.id)]
            for reference in dict.fromkeys(each.reference for each in rows):
                own = [each for each in rows if each.reference == reference]
                lines += [
                    "",
                    f"{filled.base_labels[base]} · {column.heading_at(filled.scale)} · n = {own[0].items} "
                    f"{own[0].unit}s{_samples(own[0])} · {labels[reference]} "
                    f"{own[0].measure.text(own[0].reference_value)} {own[0].measure.unit}{_floor(own[0])}",
                ]
                lines += [f"  {line}" for each in own for line in _sentences(each, labels)]
    lines += ["", *(f"Note: {scope}." for scope in dict.fromkeys(each.scope for each in comparisons))]
    if filled.missing:
        lines += [f"Missing: {len(filled.missing)} cell(s) have no result, and no test."]
    return "\n".join(lines).rstrip() + "\n"


def _floor(comparison: Comparison) -> str:
    return f" · {AT_FLOOR[comparison.floor]}: no method is called ahead" if comparison.floor else ""


def _samples(comparison: Comparison) -> str:
    return f" x {comparison.samples} samples" if comparison.samples > 1 else ""


def _sentences(each: Comparison, labels: dict[str, str]) -> list[str]:
    up, down = ("lower", "higher") if each.measure.lower_is_better else ("higher", "lower")

    def text(value: float) -> str:
        return each.measure.text(value, signed=True)

    head = (
        f"{labels[each.method]:<10} {text(each.difference):>6} [{text(each.ci_low)}, {text(each.ci_high)}]"
        f"  rank-biserial {each.rank_biserial:+.2f}  p {p_text(each.wilcoxon_p)}{' †' if each.dagger else ''}"
    )
    tests = [f"{each.wilcoxon_method}, {each.nonzero} differ ({each.wins} {up}, {each.losses} {down})"]
    if each.mcnemar_p is not None:
        tests.append(f"McNemar p {p_text(each.mcnemar_p)}")
    if each.holm_p is not None:
        tests.append(f"Holm p {p_text(each.holm_p)} of {each.family_size}")
    fixed = " with these seeds" if each.seeds > 1 else ""
    tests.append(each.reach or f"detectable {each.measure.text(each.detectable)}{fixed}")
    if each.seeds_ci:
        tests.append(f"over seeds and items [{', '.join(map(text, each.seeds_ci))}]")
        tests.append(f"over seeds p {p_text(each.seeds_p)} ({each.seeds_ahead} of {each.seeds} {up})")
    return [head, f"{'':<10} {' · '.join(tests)}"]


def _row(each: Comparison, filled: Filled) -> dict[str, Any]:
    (low, high), written = each.seeds_ci or (None, None), each.measure.written
    own = {name: getattr(each, name) for name in COLUMNS if hasattr(each, name)}
    return own | {
        "base_label": filled.base_labels[each.base],
        "measure": each.measure.unit,
        **{name: written(own[name]) for name in ("value", "reference_value", "difference", "ci_low", "ci_high")},
        "seeds_ci_low": _or_empty(low, written),
        "seeds_ci_high": _or_empty(high, written),
        "seeds_p": _or_empty(each.seeds_p, _digits),
        "seeds_ahead": each.seeds_ahead if each.seeds_ci else "",
        "detectable_difference": _or_empty(each.detectable, written),
        "rank_biserial": f"{each.rank_biserial + 0.0:.6f}",
        "wilcoxon_p": _digits(each.wilcoxon_p),
        "mcnemar_p": _or_empty(each.mcnemar_p, _digits),
        "holm_p": _or_empty(each.holm_p, _digits),
        "smallest_p": _digits(each.smallest_p),
        "dagger": "yes" if each.dagger else "",
        "note": "; ".join(filter(None, [each.reach, each.scope])),
    }


def _digits(p: float) -> str:
    return f"{p:.6g}"


def _or_empty(value: float | None, spell: Any) -> Any:
    return "" if value is None else spell(value)
