"""Filled cells + tests → a table ready to print: values, intervals, bold, †, captions, and the commands for what lacks.

Bold and † are computed here from the values and the tests; nobody sets them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reproduction.report.cells import Filled, Missing, gather
from reproduction.report.floor import at_floor, floor_of
from reproduction.report.grid import PAPER, UNTUNED, CellKey, Column, Grid, PaperValue, kind_of
from reproduction.report.measures import Measure
from reproduction.report.ordering import PARAMS, Ordering, orderings
from reproduction.report.reference import Reference, printed_beside
from reproduction.report.significance import Comparison, compare_all

EMPTY = "—"
"""What stands in the place of a value that is missing."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One printed value, in its column's measure, with its 95 % interval; ``digits`` stand after the point.

    ``spread`` is the standard deviation over seeds, None with one; ``paper`` is None at any scale but the paper's;
    ``reference`` is what the committed reference prints there, None where that is of other runs or not there. ``floor``
    is "chance" or "zero" where the interval reaches down to it (`reproduction.report.floor`), else empty.
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
    """One method on one base. ``entries`` maps column id → `Entry`, or None where the cell is missing.

    ``trainable`` is the number of trained parameters, ``params`` and ``params_plain`` are shares of the whole in
    percent, with frozen copies of base rows and without.
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
    """A table ready for `reproduction.report.render`. ``missing`` is empty exactly when every cell has its value.

    ``beside`` says what of the committed reference stands beside the values, where there is one of this table.
    """

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
        """The columns by their measure."""
        found: dict[Measure, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.measure, []).append(column)
        return found

    @property
    def missing(self) -> list[Missing]:
        return self.filled.missing

    @property
    def at_paper_scale(self) -> bool:
        return kind_of(self.scale) == PAPER

    def heading(self, column: Column) -> str:
        return column.heading_at(self.scale)


def build_table(
    grid: Grid,
    runs: Path,
    *,
    scale: str,
    expected: Mapping[CellKey, str] | None = None,
    evaluations: Mapping[tuple[str, str], str] | None = None,
) -> Table:
    """Read the runs under ``runs``, test them, and lay out the table. Arguments and errors are those of `cells.gather`.

    The caller looks at ``.missing`` and exits non-zero where it is not empty.
    """
    return lay_out(gather(grid, runs, scale=scale, expected=expected, evaluations=evaluations))


def lay_out(filled: Filled, reference: Reference | None = None) -> Table:
    """The table of cells that were gathered already, the values of a committed reference beside them.

    Raises `RecordError` where the reference's table cannot be read.
    """
    printed, beside = printed_beside(filled, reference) if reference else ({}, "")
    comparisons = compare_all(filled)
    daggers = {(each.base, each.method, each.column) for each in comparisons if each.dagger}
    best = {(base, column.id): _best(filled, base, column) for base in filled.grid.bases for column in filled.columns}
    rows = []
    for base in filled.grid.bases:
        for method in filled.grid.methods:
            if not any(filled.grid.seeds_of(base, method, column.benchmark) for column in filled.columns):
                continue  # told by a note
            entries = {
                column.id: _entry(
                    filled,
                    (base, method, column.id),
                    best=method in best[base, column.id],
                    dagger=(base, method, column.id) in daggers,
                    reference=printed.get((base, method, column.id)),
                )
                for column in filled.columns
            }
            rows.append(
                Row(
                    base=base,
                    base_label=filled.base_labels[base],
                    method=method,
                    label=filled.grid.label(method, filled.scale),
                    trainable=" / ".join(map(str, filled.parameters(base, method, "parameters_trainable"))) or EMPTY,
                    params=_params(filled.parameters(base, method, "params_pct_paper"), method),
                    params_plain=_params(filled.parameters(base, method, "params_pct_plain"), method),
                    paper_params=filled.grid.paper.get((base, method, PARAMS)),
                    entries=entries,
                )
            )
    return Table(filled=filled, rows=rows, comparisons=comparisons, orderings=orderings(filled), beside=beside)


def _best(filled: Filled, base: str, column: Column) -> set[str]:
    """The methods whose printed value is ahead, the untuned base among them; none where all tie or none may be."""
    printed = {
        method: column.measure.lead(column.measure.printed(filled.cells[base, method, column.id].mean))
        for method in filled.grid.methods
        if (base, method, column.id) in filled.cells
    }
    if column.beside or floor_of(filled, base, column) or len(set(printed.values())) < 2:
        return set()
    return {method for method, value in printed.items() if value == max(printed.values())}


def _entry(
    filled: Filled, key: tuple[str, str, str], *, best: bool, dagger: bool, reference: str | None
) -> Entry | None:
    cell = filled.cells.get(key)
    if cell is None:
        return None
    printed = cell.measure.printed
    low, high = map(printed, cell.interval)
    return Entry(
        value=printed(cell.mean),
        low=low,
        high=high,
        spread=None if cell.spread is None else printed(cell.spread),
        digits=cell.measure.digits,
        floor=at_floor(cell),
        best=best,
        dagger=dagger,
        paper=filled.grid.paper.get(key) if kind_of(filled.scale) == PAPER else None,
        reference=reference,
    )


def _params(percentages: list[float], method: str) -> str:
    if not percentages:
        return EMPTY
    if method == UNTUNED:
        return "0"
    return " / ".join(dict.fromkeys("100" if value == 100 else f"{value:.2f}" for value in percentages))
