"""Conversion of our commands' Markdown reports to HTML for the page."""

import base64
import html
import io
import re
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image

from reproduction.records.files import one_sentence

NUMBER = re.compile(r"[*+-]*(\d|—|$)")
"""Start of a cell in a column of numbers."""


def parted(text: str) -> tuple[str, str]:
    """Split a heading from its final parentheses, or ""; the page sets the second part smaller."""
    found = re.fullmatch(r"(.*?) (\(.*)", text)
    return (found[1], found[2]) if found else (text, "")


def slug(text: str) -> str:
    """Return a text as part of an id or a CSS class: letters, digits and hyphens, never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "none"


def sections(markdown: str) -> tuple[str, list[tuple[str, str]]]:
    """Split a Markdown report: (text before its first ##, without title and tables; [(heading, body), …])."""
    head, *rest = re.split(r"^## ", markdown, flags=re.MULTILINE)
    lines = [line for line in head.splitlines() if not line.startswith(("# ", "|"))]
    parts = [part.partition("\n") for part in rest]
    return "\n".join(lines).strip(), [(title.strip(), body.strip()) for title, _, body in parts]


def prose(markdown: str, *, caption: str = "", folder: Path | None = None, top: int = 3) -> Markup:
    """Return Markdown as HTML without raw HTML; its highest heading is h``top``.

    Tables get ``caption`` and a scroll container. Images are embedded from files below ``folder``. Raises `RecordError`
    if one cannot be read, ValueError for any other image, since the page must not need a network.
    """
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = renderer.parse(markdown)
    highest = min((int(token.tag[1]) for token in tokens if token.type == "heading_open"), default=1)
    for place, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) - highest + top)}"
        elif token.type == "table_open":
            end = next(n for n in range(place, len(tokens)) if tokens[n].type == "table_close")
            _table(tokens[place : end + 1], caption=html.escape(caption))
        for child in token.children or []:
            if child.type == "image":
                child.type, child.content = "html_inline", _image(child, folder)
    return Markup(renderer.renderer.render(tokens, renderer.options, {}))


def image(path: Path, alt: str) -> Markup:
    """Return an <img> with the PNG embedded in at most 64 colours: a third of the size, enough for drawings.

    Raises `RecordError` if the file cannot be read.
    """
    smaller = io.BytesIO()
    with one_sentence("read", path), Image.open(path) as picture:
        picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(smaller, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(smaller.getvalue()).decode("ascii")
    return Markup('<img src="{}" alt="{}">').format(uri, alt)


def _table(tokens: list[Token], *, caption: str) -> None:
    """Add caption and scroll container to a table; right-align its columns of numbers."""
    columns: dict[int, list[int]] = {}
    column = 0
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            column = 0
        elif token.type in ("th_open", "td_open"):
            columns.setdefault(column, []).append(place)
            column += 1
    for head, *cells in columns.values():
        numeric = all(NUMBER.match(tokens[place + 1].content) for place in cells)
        for place in (head, *cells):
            tokens[place].attrs = {"class": "num"} if numeric else {}
        tokens[head].attrSet("scope", "col")
    inside = f"<caption>{caption}</caption>" if caption else ""
    scroll = f'<div class="scroll" role="region" tabindex="0" aria-label="{caption or "table"}">'
    for token, markup in ((tokens[0], f"{scroll}<table>{inside}\n"), (tokens[-1], "</table></div>\n")):
        token.type, token.content = "html_block", markup


def _image(token: Token, folder: Path | None) -> str:
    source = str(token.attrGet("src"))
    path = (folder / source).resolve() if folder else None
    if path is None or not (path.is_relative_to(folder.resolve()) and path.is_file() and path.suffix == ".png"):
        raise ValueError(f"the image {source!r} is no PNG below {folder}; the page holds its images itself")
    return str(image(path, token.content))
