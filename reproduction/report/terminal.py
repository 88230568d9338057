"""A `Table` on a terminal: intervals under the values, and as many blocks of columns as its width needs."""

from dataclasses import dataclass

import rich.box
import rich.table
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from reproduction.report import text
from reproduction.report.grid import Column
from reproduction.report.measures import PERCENT
from reproduction.report.render import (
    beside_paper,
    beside_reference,
    brackets,
    dagger,
    floor,
    params_text,
    shown,
    spread,
    trained_text,
)
from reproduction.report.tables import EMPTY, Entry, Table

NAMES, COLUMN = 34, 19
"""Characters that the names of rows, and each further column, take."""


@dataclass(frozen=True)
class OnTerminal:
    """A table as a rich renderable: `rich.console.Console().print(OnTerminal(table))` fits any width, cuts no value."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table, fit = self.table, max(1, (options.max_width - NAMES) // COLUMN)
        yield Text(table.grid.title, style="bold")
        for measure, columns in table.groups.items():
            if measure is not PERCENT:
                yield Text(text.group_title(measure), style="bold")
            for start in range(0, len(columns), fit):
                yield _block(table, columns[start : start + fit])
        said = filter(None, [table.beside, text.ordering_counts(table)])
        below = [text.caption(table), *text.notes(table), *said]
        if table.missing:
            below += ["Missing:", *text.missing_lines(table)]
        yield from map(Text, below)


def console(table: Table) -> OnTerminal:
    """The table, its notes and what is missing, for a terminal."""
    return OnTerminal(table)


def _block(table: Table, columns: list[Column]) -> rich.table.Table:
    block = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1))
    block.add_column("Method", no_wrap=True)
    block.add_column("# trained\n# params (%)", justify="right", max_width=14)
    for column in columns:
        block.add_column(table.heading(column), justify="right", width=COLUMN - 2)
    for base, label in table.filled.base_labels.items():
        block.add_row(Text(label, style="italic"))
        rows = [row for row in table.rows if row.base == base]
        for row in rows:
            entries = [_entry(row.entries[column.id]) for column in columns]
            block.add_row(
                f"  {row.label}",
                f"{trained_text(row)}\n{params_text(row, table)}",
                *entries,
                end_section=row is rows[-1],
            )
    return block


def _entry(entry: Entry | None) -> Text:
    if entry is None:
        return Text(EMPTY)
    value = Text(shown(entry, entry.value), style="bold" if entry.best else "")
    below = f"{brackets(entry)}{floor(entry)}{beside_paper(entry, chr(10))}{beside_reference(entry, chr(10))}"
    return value.append(f"{dagger(entry)}{spread(entry)}\n{below}", "dim")
