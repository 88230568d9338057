"""Layout of filled cells and tests as a table: values, intervals, bold, †. Bold and † are always computed."""

from dataclasses import dataclass

from reproduction.report.cells import Cell, Filled, Missing
from reproduction.report.floor import at_floor, floor_of
from reproduction.report.grid import PAPER, UNTUNED, Column, Grid, PaperValue, kind_of
from reproduction.report.measures import Measure
from reproduction.report.ordering import PARAMS, Ordering, orderings
from reproduction.report.reference import Reference, printed_beside
from reproduction.report.significance import Comparison, compare_all

EMPTY = "—"
"""Placeholder for a missing value."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One printed value, in its column's measure.

    Args:
        value, low, high: with its 95 % interval; ``digits`` are printed after the point.
        spread: standard deviation over seeds, None with one.
        floor: "chance" or "zero" if the interval reaches down to it (`reproduction.report.floor`), else empty.
        best, dagger: bold, and †.
        paper: None at any scale but the paper's.
        reference: the committed reference's printed value, None if it is missing or of other runs.
    """

    value: float
    low: float
    high: float
    spread: float | None
    digits: int
    floor: str
    best: bool
    dagger: bool
    paper: PaperValue | None
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one base.

    Args:
        trainable: the number of trained parameters.
        params, params_plain: shares of the whole in percent, with frozen copies of base rows and without.
        paper_params: the paper's share.
        entries: column id → `Entry`, or None for a missing cell.
    """

    base: str
    base_label: str
    method: str
    label: str
    trainable: str
    params: str
    params_plain: str
    paper_params: PaperValue | None
    entries: dict[str, Entry | None]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table ready for `reproduction.report.render`; ``beside`` describes the values of the committed reference."""

    filled: Filled
    rows: list[Row]
    comparisons: list[Comparison]
    orderings: list[Ordering]
    beside: str = ""

    @property
    def grid(self) -> Grid:
        return self.filled.grid

    @property
    def scale(self) -> str:
        return self.filled.scale

    @property
    def columns(self) -> list[Column]:
        return self.filled.columns

    @property
    def groups(self) -> dict[Measure, list[Column]]:
        """Return the columns by their measure."""
        return {
            measure: [column for column in self.columns if column.measure == measure]
            for measure in dict.fromkeys(column.measure for column in self.columns)
        }

    @property
    def missing(self) -> list[Missing]:
        """Missing cells; empty exactly if every cell has its value."""
        return self.filled.missing

    @property
    def at_paper_scale(self) -> bool:
        return kind_of(self.scale) == PAPER


def lay_out(filled: Filled, reference: Reference | None = None) -> Table:
    """Lay out the cells as a table, with the values of a committed reference beside them.

    Raises `RecordError` if the reference's table cannot be read.
    """
    grid, columns = filled.grid, filled.columns
    printed, beside = printed_beside(filled, reference) if reference else ({}, "")
    comparisons = compare_all(filled)
    daggers = {(each.base, each.method, each.column) for each in comparisons if each.dagger}
    rows = []
    for base in grid.bases:
        best = {column.id: _best(filled, base, column) for column in columns}
        for method in grid.methods:
            if not any(grid.seeds_of(base, method, column.benchmark) for column in columns):
                continue  # a note names it
            entries = {}
            for column in columns:
                key = base, method, column.id
                entries[column.id] = None
                if key in filled.cells:
                    entries[column.id] = _entry(
                        filled.cells[key],
                        best=method in best[column.id],
                        dagger=key in daggers,
                        paper=grid.paper.get(key) if kind_of(filled.scale) == PAPER else None,
                        reference=printed.get(key),
                    )
            rows.append(
                Row(
                    base=base,
                    base_label=filled.base_labels[base],
                    method=method,
                    label=grid.label(method, filled.scale),
                    trainable=" / ".join(map(str, filled.parameters(base, method, "parameters_trainable"))) or EMPTY,
                    params=_params(filled.parameters(base, method, "params_pct_paper"), method),
                    params_plain=_params(filled.parameters(base, method, "params_pct_plain"), method),
                    paper_params=grid.paper.get((base, method, PARAMS)),
                    entries=entries,
                )
            )
    return Table(filled=filled, rows=rows, comparisons=comparisons, orderings=orderings(filled), beside=beside)


def _best(filled: Filled, base: str, column: Column) -> set[str]:
    """Return the methods with the best printed value, including the untuned base; none if all tie or none may win."""
    printed = {
        method: column.measure.lead(column.measure.printed(filled.cells[base, method, column.id].mean))
        for method in filled.grid.methods
        if (base, method, column.id) in filled.cells
    }
    if column.beside or floor_of(filled, base, column) or len(set(printed.values())) < 2:
        return set()
    return {method for method, value in printed.items() if value == max(printed.values())}


def _entry(cell: Cell, *, best: bool, dagger: bool, paper: PaperValue | None, reference: str | None) -> Entry:
    value, low, high = map(cell.measure.printed, (cell.mean, *cell.interval))
    return Entry(
        value=value,
        low=low,
        high=high,
        spread=None if cell.spread is None else cell.measure.printed(cell.spread),
        digits=cell.measure.digits,
        floor=at_floor(cell),
        best=best,
        dagger=dagger,
        paper=paper,
        reference=reference,
    )


def _params(percentages: list[float], method: str) -> str:
    if not percentages:
        return EMPTY
    if method == UNTUNED:
        return "0"
    return " / ".join(dict.fromkeys("100" if value == 100 else f"{value:.2f}" for value in percentages))
