"""What the page is made of: a block is a mapping whose ``kind`` names the macro of templates/blocks.html that shows it.

Only ``html`` is markup, from our own Markdown renderer and our own figures; everything else is escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from reproduction.report.figures import FIGURES, Absent, Sources, folder_of
from reproduction.report.page.markdown import LONG, prose

Block = dict[str, Any]
Part = Callable[[], Block | list[Block]]

COLUMNS = {
    "params_pct_paper": "# params (%)", "params_pct_plain": "without copies (%)", "parameters_trainable": "# trained",
    "seeds": "seeds", "base": "model", "base_label": "model", "method_label": "method", "wilcoxon_p": "Wilcoxon p",
    "holm_p": "Holm p", "mcnemar_p": "McNemar p", "seeds_p": "p over seeds", "rank_biserial": "rank-biserial",
    "nonzero": "items that differ", "detectable_difference": "detectable", "pct": "%", "printed": "paper prints",
}  # fmt: skip
"""A CSV column's name in words, where taking out the underscores is not enough."""


def section(id: str, command: str, *parts: Part, title: str = "", lead: str = "") -> Block:
    """A part of the page; templates/page.html has the title and the lead of those that have none here."""
    blocks = [block for part in parts for block in attempt(part)]
    return {"id": id, "title": title, "lead": lead, "command": command, "blocks": blocks}


def attempt(part: Part) -> list[Block]:
    """The blocks, or in their place what is not there and the command that makes it."""
    try:
        found = part()
    except Absent as absent:
        return [{"kind": "missing", "what": absent.what, "command": absent.command}]
    return found if isinstance(found, list) else [found]


def words(markdown: str, *, warns: bool = False, **options: Any) -> Block:
    """Markdown as a block; ``options`` are those of `prose`."""
    return {"kind": "prose", "html": prose(markdown, **options), "warns": warns}


def figure(sources: Sources, name: str) -> Block:
    """A figure of ours, drawn for the page, with the names of its files. Raises `Absent`."""
    drawn = FIGURES[name](sources)
    folder = sources.name(folder_of(name, sources))
    files = [f"{folder}/{drawn.name}.{kind}" for kind in ("png", "pdf")]
    return picture(f"figure-{drawn.name}", drawn.title, html=Markup(drawn.svg()), caption=drawn.caption, files=files)


def picture(id: str, title: str, *, html: Markup, caption: str = "", files: Sequence[str] = ()) -> Block:
    """An <svg> or an <img> that carries its alternative text."""
    return {"kind": "picture", "id": id, "title": title, "html": html, "caption": caption, "files": files}


def details(summary: str, *blocks: Block) -> Block:
    """Blocks behind a line that opens them."""
    return {"kind": "details", "summary": summary, "blocks": blocks}


def written_table(sources: Sources, name: str, *, command: str) -> Block:
    """A table of the scale as its own Markdown has it, under its title. Raises `Absent`."""
    title, _, rest = sources.text(sources.own / "tables" / f"{name}.md", command=command).partition("\n")
    return words(rest, caption=title.removeprefix("# "))


def data_table(id: str, caption: str, *, rows: Sequence[Mapping[str, str]], source: str = "") -> Block:
    """Rows of a CSV file: columns in its order, empty ones left out; columns of numbers stand to the right."""
    columns = [column for column in rows[0] if any(row.get(column) for row in rows)]
    cells = [[_spelled(row.get(column) or "") for column in columns] for row in rows]
    numeric = [n for n, column in enumerate(columns) if all(_is_number(row.get(column) or "0") for row in rows)]
    headings = [heading(column) for column in columns]
    return {"kind": "data_table", "id": id, "caption": caption, "source": source} | {
        "headings": headings, "rows": cells, "numeric": numeric,
    }  # fmt: skip


def folded(table: Block) -> Block:
    """A long table behind a line that opens it, a short one as it is."""
    rows = len(table["rows"])
    return details(f"{table['caption']} ({rows} rows)", table) if rows > LONG else table


def heading(column: str) -> str:
    """A CSV column's name for a reader."""
    return COLUMNS.get(column, column.replace("_", " "))


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
