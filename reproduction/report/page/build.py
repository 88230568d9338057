"""Assembly of the page: one HTML file without scripts or external resources. The same input gives the same bytes."""

import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from reproduction.palette import HUES, INK, MUTED, NIGHT, PANEL, PAPER, RULE, look
from reproduction.records import write_text
from reproduction.report.figures import Sources, has_rates
from reproduction.report.grid import kind_of
from reproduction.report.page.blocks import words
from reproduction.report.page.exact import audit_totals, counts_sentence, exact_sections
from reproduction.report.page.markdown import parted, slug
from reproduction.report.page.results import figure_section, orderings_summary, result_section, tables_of
from reproduction.report.real import listed, real_sentences

TEMPLATES = Path(__file__).parent / "templates"
GLYPHS = {"o": "●", "s": "■", "^": "▲", "v": "▼", "<": "◀", ">": "▶", "D": "◆", "P": "✚", "X": "✖", "h": "⬢", "*": "★"}
"""matplotlib's markers as characters, so that a method has the same mark in the text and in the figures."""

COLOURS = {
    "paper": (PAPER, NIGHT),
    "ink": (INK, "#e8e6e1"),
    "muted": (MUTED, "#a4a9b1"),
    "rule": (RULE, "#34393f"),
    "panel": (PANEL, "#1f2328"),
    "link": ("#0b57a4", "#8ab8ff"),
    "badge": ("#fff0cc", "#3b2d08"),
    "badge-ink": ("#5a3c00", "#ffdc94"),
    "good": ("#17663f", "#7fd1a3"),
    "bad": ("#a8261b", "#ff9d8f"),
} | {f"hue-{name}": (hue.light, hue.dark) for name, hue in HUES.items()}
"""CSS variable → its colours in the light and the dark theme."""


def build_page(sources: Sources) -> str:
    """Return the page as HTML. Missing results are listed with their commands; no model output is shown.

    Raises `GridError`, `RecordError` or ValueError if an existing file is malformed.
    """
    sections = [
        *(figure_section(sources, "rates") if has_rates(sources) else []),
        *(result_section(sources, table) for table in tables_of(sources)),
        *figure_section(sources, "worth"),
        *exact_sections(sources),
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
    sentences = real_sentences(sources.results, sources.experiments)
    page = environment.get_template("page.html").render(
        sections=sections,
        scale=sources.scale,
        kind=kind_of(sources.scale),
        command=sources.make("report"),
        real=words(listed(sentences)) if sentences else None,
        orderings=orderings_summary(sources),
        totals=audit_totals(sources),
        counts=counts_sentence(sources),
        colours=COLOURS,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    )
    return re.sub(r"[ \t]+$", "", re.sub(r"\n\s*\n+", "\n", page), flags=re.MULTILINE)


def write_page(sources: Sources, path: Path) -> int:
    """Build the page and write it; returns its size in bytes. Raises the errors of `build_page`."""
    page = build_page(sources)
    write_text(path, page)
    return len(page.encode("utf-8"))
