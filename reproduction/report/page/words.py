"""Words on the page: Markdown that our commands wrote, the names of CSV columns, and the sentence about the scale."""

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image

from reproduction.records.files import one_sentence
from reproduction.report.grid import PAPER, SMALL, kind_of

EMBEDDED_BADGE = (
    "embedded scale: small models trained here on generated tasks; not comparable with the paper's accuracies"
)
SMALL_BADGE = (
    "small scale: other pre-trained models on the paper's tasks, trained briefly; not comparable with the paper's "
    "accuracies"
)
PAPER_BADGE = "the paper's scale: its models and data"

COLUMNS = {
    "params_pct_paper": "# params (%)", "params_pct_plain": "without copies (%)", "parameters_trainable": "# trained",
    "seeds": "seeds", "base": "model", "base_label": "model", "method_label": "method", "wilcoxon_p": "Wilcoxon p",
    "holm_p": "Holm p", "mcnemar_p": "McNemar p", "seeds_p": "p over seeds", "rank_biserial": "rank-biserial",
    "nonzero": "items that differ", "detectable_difference": "detectable", "pct": "%", "printed": "paper prints",
}  # fmt: skip
"""A CSV column's name in words, where taking out the underscores is not enough."""


NUMBER = re.compile(r"[*+-]*(\d|—|$)")
"""How a cell of a column of numbers begins."""

LONG = 30
"""Rows of a table above which it is folded away."""


def badge(scale: str) -> str:
    """What numbers of this scale are, in one line."""
    return {PAPER: PAPER_BADGE, SMALL: SMALL_BADGE}.get(kind_of(scale), EMBEDDED_BADGE)


def heading(column: str) -> str:
    """A CSV column's name for a reader."""
    return COLUMNS.get(column, column.replace("_", " "))


def parted(text: str) -> tuple[str, str]:
    """A heading and what it has in parentheses at its end, or "": the page sets the second smaller."""
    found = re.fullmatch(r"(.*?) (\(.*)", text)
    return (found[1], found[2]) if found else (text, "")


def slug(text: str) -> str:
    """A text as part of an id or a CSS class: letters, digits and hyphens, never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "none"


def sections(markdown: str) -> tuple[str, list[tuple[str, str]]]:
    """A Markdown report as (what stands before its first ##, without title and tables; [(heading, body), …])."""
    head, *rest = re.split(r"^## ", markdown, flags=re.MULTILINE)
    kept = [line for line in head.splitlines() if not line.startswith(("# ", "|"))]
    parts = [part.partition("\n") for part in rest]
    return "\n".join(kept).strip(), [(title.strip(), body.strip()) for title, _, body in parts]


def prose(markdown: str, *, caption: str = "", folder: Path | None = None, top: int = 3, long: int = LONG) -> Markup:
    """Markdown as HTML: no raw HTML passes, its highest heading is an h``top``, a table above ``long`` rows is folded.

    A table gets ``caption`` and its own scroll container. An image is put into the page, read from below ``folder``.
    Raises `RecordError` where it cannot be read, ValueError for one elsewhere, since the page must not need a network.
    """
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = renderer.parse(markdown)
    highest = min((int(token.tag[1]) for token in tokens if token.type == "heading_open"), default=1)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) - highest + top)}"
    _align(tokens)
    renderer.add_render_rule("table_open", _table_open(caption, long))
    renderer.add_render_rule("table_close", _table_close(long))
    renderer.add_render_rule("image", _image(folder))
    return Markup(renderer.renderer.render(tokens, renderer.options, {}))


def data_uri(path: Path) -> str:
    """A PNG file as a URI that holds it, in at most 64 colours: a third of the size, and a drawing needs no more.

    Raises `RecordError` where it cannot be read.
    """
    smaller = io.BytesIO()
    with one_sentence("read", path), Image.open(path) as picture:
        picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(smaller, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(smaller.getvalue()).decode("ascii")


def image(path: Path, alt: str) -> Markup:
    """An <img> that holds its PNG."""
    return Markup('<img src="{}" alt="{}">').format(data_uri(path), alt)


Rule = Callable[..., str]


def _table_open(caption: str, long: int) -> Rule:
    said = html.escape(caption)

    def render(self: RendererHTML, tokens: Sequence[Token], place: int, *_: Any) -> str:
        rows = _rows(tokens, place)
        fold = f"<details><summary>{said} ({rows} rows)</summary>" if rows > long else ""
        inside = f"<caption>{said}</caption>" if said else ""
        return f'{fold}<div class="scroll" role="region" tabindex="0" aria-label="{said or "table"}"><table>{inside}\n'

    return render


def _table_close(long: int) -> Rule:
    def render(self: RendererHTML, tokens: Sequence[Token], place: int, *_: Any) -> str:
        start = max(i for i in range(place) if tokens[i].type == "table_open")
        return "</table></div>" + ("</details>\n" if _rows(tokens, start) > long else "\n")

    return render


def _rows(tokens: Sequence[Token], start: int) -> int:
    """The rows of the body of the table that opens at ``start``."""
    end = next(i for i in range(start, len(tokens)) if tokens[i].type == "table_close")
    return sum(token.type == "tr_open" for token in tokens[start:end]) - 1


def _align(tokens: Sequence[Token]) -> None:
    """Columns of numbers to the right, whatever the Markdown says of columns of words; headings name their column."""
    columns: dict[tuple[int, int], list[int]] = {}
    table = column = 0
    for place, token in enumerate(tokens):
        table += token.type == "table_open"
        column = 0 if token.type == "tr_open" else column
        if token.type in ("th_open", "td_open"):
            columns.setdefault((table, column), []).append(place)
            column += 1
    for head, *cells in columns.values():
        numeric = all(NUMBER.match(tokens[place + 1].content) for place in cells)
        for place in (head, *cells):
            tokens[place].attrs = {"class": "num"} if numeric else {}
        tokens[head].attrSet("scope", "col")


def _image(folder: Path | None) -> Rule:
    def render(self: RendererHTML, tokens: Sequence[Token], place: int, *_: Any) -> str:
        source, alt = str(tokens[place].attrGet("src")), tokens[place].content
        path = (folder / source).resolve() if folder else None
        if path is None or not (path.is_relative_to(folder.resolve()) and path.is_file() and path.suffix == ".png"):
            raise ValueError(f"the image {source!r} is no PNG below {folder}; the page holds its images itself")
        return str(image(path, alt))

    return render
