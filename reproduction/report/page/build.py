"""Assembly of the page: one HTML file without scripts or external resources. The same input gives the same bytes."""

import dataclasses
import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from reproduction.palette import HUES, INK, MUTED, NIGHT, PANEL, PAPER, RULE, look
from reproduction.records import write_text
from reproduction.report import grid
from reproduction.report.figures import Sources
from reproduction.report.grid import EMBEDDED, SMALL, TINY, kind_of
from reproduction.report.page.blocks import Block, attempt, section
from reproduction.report.page.exact import claims_card, costs_card, exact_sections, made_section
from reproduction.report.page.markdown import parted, slug
from reproduction.report.page.real import PretrainedModel
from reproduction.report.page.results import figure_with_table, orderings, table_blocks, tables_of

TEMPLATES = Path(__file__).parent / "templates"
GLYPHS = {"o": "●", "s": "■", "^": "▲", "v": "▼", "<": "◀", ">": "▶", "D": "◆", "P": "✚", "X": "✖", "h": "⬢", "*": "★"}
"""matplotlib's markers as characters, so that a method has the same mark in the text and in the figures."""

COLOURS = {
    "paper": (PAPER, NIGHT),
    "ink": (INK, "#e8e6e1"),
    "muted": (MUTED, "#a4a9b1"),
    "rule": (RULE, "#34393f"),
    "panel": (PANEL, "#1f2328"),
    "accent": ("#c23c0e", "#f2763c"),
    "part": ("#85898f", "#85898f"),
    "fails": ("#b9bcc1", "#565b62"),
    "open": ("#e3e4e8", "#343a41"),
} | {f"hue-{name}": (hue.light, hue.dark) for name, hue in HUES.items()}
"""CSS variable → its colours in the light and the dark theme."""


HOMES = {
    "table1": "real", "table2": "real", "table_longer": "real", "table3": "rows", "table_controls": "rows",
    "table7": "budget", "table8": "budget",
}  # fmt: skip
"""Table → its section, at the small scale; at the others all tables are in the section of the scale's kind."""


def build_page(sources: Sources) -> str:
    """Return the page as HTML. Missing results are listed with their commands; no model output is shown.

    Raises `GridError`, `RecordError` or ValueError if an existing file is malformed.
    """
    real, kind = PretrainedModel(sources), kind_of(sources.scale)
    tables: dict[str, list[Block]] = {}
    for table in tables_of(sources):
        tables.setdefault(HOMES[table] if kind == SMALL else kind, []).extend(table_blocks(sources, table))
    tables.setdefault("real" if kind == SMALL else kind, []).extend(figure_with_table(sources, "worth"))
    cards = {"real": real.card, "claims": lambda: claims_card(sources), "costs": lambda: costs_card(sources)}
    embedded = sources if kind == EMBEDDED else dataclasses.replace(sources, scale=TINY, reference=True)
    sections = [
        *([section(kind, lambda: orderings(sources), lambda: tables[kind])] if kind == grid.PAPER else []),
        *real.sections(tables),
        *exact_sections(sources),
        section(EMBEDDED, lambda: orderings(embedded), lambda: tables.get(EMBEDDED, [])),
        made_section(sources),
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"slug": slug, "parted": parted, "look": look}
    environment.globals |= {"glyphs": GLYPHS}
    page = environment.get_template("page.html").render(
        cards={id: attempt(card) for id, card in cards.items()},
        sections=sections,
        sources=sources,
        kind=kind,
        colours=COLOURS,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    )
    return re.sub(r"[ \t]+$", "", re.sub(r"\n\s*\n+", "\n", page), flags=re.MULTILINE)


def write_page(sources: Sources, path: Path) -> int:
    """Build the page and write it; returns its size in bytes. Raises the errors of `build_page`."""
    page = build_page(sources)
    write_text(path, page)
    return len(page.encode("utf-8"))
