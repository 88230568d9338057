"""What several sections of the page are built with."""

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from reproduction.report.figures import Absent, Plate, Sources, folder_of
from reproduction.report.page.blocks import DataTable, Details, Missing, Picture, Prose
from reproduction.report.page.words import heading, prose

FOLD = 30
"""Rows above which a table is folded away."""


def attempt(build: Callable[[], list[object]]) -> list[object]:
    """The blocks, or in their place what is not there and the command that makes it."""
    try:
        return build()
    except Absent as absent:
        return [Missing(what=absent.what, command=absent.command)]


def plate(sources: Sources, name: str, drawn: Plate) -> Picture:
    """A figure of ours, drawn for the page, with the names of its files."""
    folder = sources.name(folder_of(name, sources))
    return Picture(
        id=f"figure-{drawn.name}",
        title=drawn.title,
        caption=drawn.caption,
        html=Markup(drawn.svg()),
        files=tuple(f"{folder}/{drawn.name}.{kind}" for kind in ("png", "pdf")),
    )


def written_table(sources: Sources, name: str, *, command: str) -> Prose:
    """A table of the scale as its own Markdown has it, under its title. Raises `Absent` where it is not there."""
    title, _, rest = sources.text(sources.own / "tables" / f"{name}.md", command=command).partition("\n")
    return Prose(html=prose(rest, caption=title.removeprefix("# ")))


def plain_table(rows: Sequence[Mapping[str, str]], *, id: str, caption: str, source: str = "") -> DataTable:
    """Rows of a CSV file as they are: columns in its order, empty ones left out, counts with their thousands apart."""
    columns = [column for column in rows[0] if any(row.get(column) for row in rows)]
    numeric = {place for place, column in enumerate(columns) if all(_is_number(row.get(column) or "0") for row in rows)}
    return DataTable(
        id=id,
        caption=caption,
        headings=[heading(column) for column in columns],
        rows=[[_spelled(row.get(column) or "") for column in columns] for row in rows],
        numeric=frozenset(numeric),
        source=source,
    )


def folded(table: DataTable) -> DataTable | Details:
    """A long table behind a line that opens it, a short one as it is."""
    return (
        Details(summary=f"{table.caption} ({len(table.rows)} rows)", blocks=[table])
        if len(table.rows) > FOLD
        else table
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spelled(text: str) -> str:
    """Whole numbers with thousands apart, decimals with at most four significant digits, anything else as it is."""
    if text.isdigit():
        return f"{int(text):,}"
    if "." in text and _is_number(text):
        value = float(text)
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}".rstrip("0").rstrip(".")
    return text
