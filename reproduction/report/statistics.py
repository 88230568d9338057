"""The tests of a table as CSV and as sentences: effect and interval first, then p, then the detectable difference."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reproduction.report.cells import Filled
from reproduction.report.documents import write_csv
from reproduction.report.ordering import AT_FLOOR
from reproduction.report.significance import EXACT_UP_TO, POWER, ZERO_METHOD, Comparison, p_text

COLUMNS = (
    "base", "base_label", "method", "reference", "column", "benchmark", "metric", "measure", "unit", "items",
    "samples", "seeds",
    "value", "reference_value", "difference", "ci_low", "ci_high", "seeds_ci_low", "seeds_ci_high", "seeds_p",
    "seeds_ahead", "rank_biserial", "nonzero", "wins", "losses",
    "wilcoxon_statistic", "wilcoxon_p", "wilcoxon_method", "zero_method", "mcnemar_p", "holm_p", "family",
    "family_size", "smallest_p", "detectable_difference", "floor", "dagger", "note",
)  # fmt: skip


def write_significance(filled: Filled, out: Path, comparisons: Iterable[Comparison]) -> None:
    """Write the tests as CSV: values and differences in the unit that ``measure`` names, p to six digits."""
    write_csv(out, COLUMNS, test_rows(filled, comparisons))


def test_rows(filled: Filled, comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """Return the rows of the file, one for each comparison."""
    return [_row(each, filled.base_labels[each.base]) for each in comparisons]


def _row(each: Comparison, base_label: str) -> dict[str, Any]:
    low, high = each.seeds_ci or (None, None)
    row = {name: getattr(each, name) for name in COLUMNS if hasattr(each, name)} | {
        "base_label": base_label,
        "measure": each.measure.unit,
        "seeds_ci_low": low,
        "seeds_ci_high": high,
        "seeds_ahead": each.seeds_ahead if each.seeds_ci else None,
        "detectable_difference": each.detectable,
        "rank_biserial": f"{each.rank_biserial + 0.0:.6f}",
        "dagger": "yes" if each.dagger else "",
        "note": "; ".join(filter(None, [each.reach, each.scope])),
    }
    spell = dict.fromkeys(("seeds_p", "wilcoxon_p", "mcnemar_p", "holm_p", "smallest_p"), "{:.6g}".format)
    measured = ("value", "reference_value", "difference", "ci_low", "ci_high", "seeds_ci_low", "seeds_ci_high")
    spell |= dict.fromkeys((*measured, "detectable_difference"), each.measure.written)
    return {name: "" if value is None else spell.get(name, lambda v: v)(value) for name, value in row.items()}


def summary(filled: Filled, comparisons: Sequence[Comparison]) -> str:
    """Return the tests as text for a terminal, by base and column."""
    grid, scale = filled.grid, filled.scale
    labels = {method: grid.label(method, scale) for method in grid.methods}
    one = labels[grid.reference] if isinstance(grid.reference, str) else "its reference"
    lines = [
        f"{grid.table} at scale {scale}: every method against {one}, paired by item",
        "",
        f"Test: Wilcoxon signed-rank, two-sided, raw; zero differences dropped ({ZERO_METHOD!r}); exact (ties as "
        f"midranks) up to {EXACT_UP_TO} differing items, normal approximation above.",
        f"†: p < {grid.alpha:g} and ahead of {one}. Holm's families: methods x columns of "
        "one base, scores and held-out losses apart.",
        f"detectable: the smallest true difference seen with {POWER:.0%} power when as many items differ as do here.",
    ]
    headings = {column.id: column.heading_at(scale) for column in filled.columns}
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for each in comparisons:
        groups.setdefault((each.base, each.column, each.reference), []).append(each)
    for (base, column, reference), (first, *others) in groups.items():
        samples = f" x {first.samples} samples" if first.samples > 1 else ""
        floor = f" · {AT_FLOOR[first.floor]}: no method is called ahead" if first.floor else ""
        value = f"{labels[reference]} {first.measure.text(first.reference_value)} {first.measure.unit}"
        place = f"{filled.base_labels[base]} · {headings[column]}"
        lines += ["", f"{place} · n = {first.items} {first.unit}s{samples} · {value}{floor}"]
        lines += [f"  {line}" for each in (first, *others) for line in _sentences(each, labels[each.method])]
    lines += ["", *(f"Note: {scope}." for scope in dict.fromkeys(each.scope for each in comparisons))]
    if filled.missing:
        lines += [f"Missing: {len(filled.missing)} cell(s) have no result, and no test."]
    return "\n".join(lines).rstrip() + "\n"


def _sentences(each: Comparison, label: str) -> list[str]:
    up, down = ("lower", "higher") if each.measure.lower_is_better else ("higher", "lower")

    def text(value: float) -> str:
        return each.measure.text(value, signed=True)

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
    return [
        f"{label:<10} {text(each.difference):>6} [{text(each.ci_low)}, {text(each.ci_high)}]  rank-biserial "
        f"{each.rank_biserial:+.2f}  p {p_text(each.wilcoxon_p)}{' †' if each.dagger else ''}",
        f"{'':<10} {' · '.join(tests)}",
    ]
