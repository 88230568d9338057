"""Blocks of the page: mappings whose ``kind`` names the macro of templates/blocks.html that renders them.

Only ``html`` is markup, from our own Markdown renderer and figures; everything else is escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from reproduction.report.figures import FIGURES, Absent, Sources, folder_of
from reproduction.report.page.markdown import prose

Block = dict[str, Any]
Part = Callable[[], Block | list[Block]]

COLUMNS = {
    "params_pct_paper": "# params (%)", "params_pct_plain": "without copies (%)", "parameters_trainable": "# trained",
    "seeds": "seeds", "base": "model", "base_label": "model", "method_label": "method", "wilcoxon_p": "Wilcoxon p",
    "holm_p": "Holm p", "mcnemar_p": "McNemar p", "seeds_p": "p over seeds", "rank_biserial": "rank-biserial",
    "nonzero": "items that differ", "detectable_difference": "detectable", "pct": "%", "printed": "paper prints",
}  # fmt: skip
"""Column headings, for CSV columns whose name without underscores is not clear enough."""


def section(id: str, *parts: Part) -> Block:
    """Return a section of the page; templates/page.html has its question."""
    return {"id": id, "blocks": attempt(*parts)}


def attempt(*parts: Part) -> list[Block]:
    """Return the blocks, with one note on what is missing for each command that makes it."""
    blocks, commands = [], set()
    for part in parts:
        try:
            found = part()
        except Absent as absent:
            found = {"kind": "missing", "what": absent.what, "command": absent.command}
        for block in found if isinstance(found, list) else [found]:
            if block["kind"] != "missing" or block["command"] not in commands:
                blocks.append(block)
            commands.add(block.get("command"))
    return blocks


def answer(markdown: str) -> Block:
    """Return the first words of a section."""
    return {"kind": "answer", "html": prose(markdown.replace(" %", "\u00a0%"))}


def words(markdown: str, *, warns: bool = False, **options: Any) -> Block:
    """Return Markdown as a block; ``options`` are those of `prose`."""
    return {"kind": "prose", "html": prose(markdown, **options), "warns": warns}


def figure(sources: Sources, name: str) -> Block:
    """Return one of our figures, drawn for the page, with the names of its files. Raises `Absent`."""
    drawn = FIGURES[name](sources)
    folder = sources.name(folder_of(name, sources))
    files = [f"{folder}/{drawn.name}.{kind}" for kind in ("png", "pdf")]
    return picture(f"figure-{drawn.name}", drawn.title, html=Markup(drawn.svg()), caption=drawn.caption, files=files)


def picture(id: str, title: str, *, html: Markup, caption: str = "", files: Sequence[str] = ()) -> Block:
    """Return an <svg> or an <img> that carries its alternative text."""
    return {"kind": "picture", "id": id, "title": title, "html": html, "caption": caption, "files": files}


def details(summary: str, *blocks: Block) -> Block:
    """Return blocks folded behind a summary line with the number of their tables' rows."""
    return {"kind": "details", "summary": summary, "rows": sum(map(_rows_of, blocks)), "blocks": blocks}


def written_table(sources: Sources, name: str, *, command: str) -> Block:
    """Return a table of the scale, read from its Markdown file, folded behind its title. Raises `Absent`."""
    return report(sources.text(sources.own / "tables" / f"{name}.md", command=command))


def report(markdown: str) -> Block:
    """Return a Markdown report folded behind its title."""
    title, _, rest = markdown.partition("\n")
    title = title.removeprefix("# ")
    return details(title, words(rest, caption=title, top=4))


def data_table(id: str, caption: str, *, rows: Sequence[Mapping[str, str]], source: str = "") -> Block:
    """Return the rows of a CSV file as a table without empty columns; columns of numbers are right-aligned."""
    columns = [column for column in rows[0] if any(row.get(column) for row in rows)]
    cells = [[_spelled(row.get(column) or "") for column in columns] for row in rows]
    numeric = [n for n, column in enumerate(columns) if all(_is_number(row.get(column) or "0") for row in rows)]
    headings = [heading(column) for column in columns]
    return {"kind": "data_table", "id": id, "caption": caption, "source": source} | {
        "headings": headings, "rows": cells, "numeric": numeric,
    }  # fmt: skip


def heading(column: str) -> str:
    """Return the heading of a CSV column."""
    return COLUMNS.get(column, column.replace("_", " "))


def _rows_of(block: Block) -> int:
    """Return the number of rows of the tables in a block."""
    if "html" in block:
        return block["html"].count("<tr>") - block["html"].count("<thead>")
    if "blocks" in block:
        return sum(map(_rows_of, block["blocks"]))
    return sum(map(len, block["groups"].values())) if "groups" in block else len(block.get("rows", ()))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spelled(text: str) -> str:
    """Format integers with thousands separators and decimals with at most four significant digits; keep other text."""
    if text.isdigit():
        return f"{int(text):,}"
    if "." in text and _is_number(text):
        value = float(text)
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}".rstrip("0").rstrip(".")
    return text
