"""Status of the cells of some tables: one line per run, with the tables that share it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reproduction.cells.cell import Cell, distinct
from reproduction.records import RecordError
from reproduction.report.collect import DAMAGED
from reproduction.running.run_lock import seconds_at_work

DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One run: its title, the tables that use it, its state, its seconds (None if unknown), what is missing.

    The state is "done" if nothing is missing, "to evaluate" if it is trained and lacks an evaluation, "damaged" if its
    records cannot be read, else the training's state, or "never run".
    """

    title: str
    tables: tuple[str, ...]
    state: str
    seconds: float | None
    missing: tuple[str, ...]


def standings(planned: Sequence[tuple[str, Sequence[Cell]]]) -> list[Standing]:
    """Return the runs of (table, cells) pairs, each once, in the order of the tables."""
    tables: dict[str, dict[str, None]] = {}
    for table, cells in planned:
        for cell in cells:
            tables.setdefault(cell.run.name, {})[table] = None
    found = []
    for cell in distinct(cell for _, cells in planned for cell in cells):
        try:
            seconds, missing = seconds_at_work(cell.run.folder), cell.missing
            state = ("to evaluate" if missing else DONE) if cell.run.done else cell.run.state or "never run"
        except RecordError as error:
            state, seconds, missing = DAMAGED, None, [str(error)]
        own = tuple(tables[cell.run.name])
        found.append(Standing(title=cell.title, tables=own, state=state, seconds=seconds, missing=tuple(missing)))
    return found


def show(found: Sequence[Standing], console: Console) -> None:
    """Print the runs as one table, then the number of finished ones and the total time."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("cell", "tables", "state", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left", no_wrap=True)
    table.add_column("missing", overflow="fold")
    for each in found:
        seconds = "" if each.seconds is None else f"{each.seconds:.0f}"
        missing = "; ".join(each.missing) if each.state != "never run" else ""
        tables = " ".join(name.removeprefix("table").removeprefix("_") for name in each.tables)
        table.add_row(*map(Text, (each.title, tables, each.state, seconds, missing)))
    console.print(table)
    done = sum(each.state == DONE for each in found)
    spent = sum(each.seconds or 0.0 for each in found)
    console.print(f"{done} of {len(found)} cells are done; {spent / 60:.1f} minutes of work so far", highlight=False)
