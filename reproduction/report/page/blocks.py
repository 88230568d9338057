"""What the page is made of. A block names the template macro that spells it; it holds words and numbers, no markup.

Only `Prose` and `Picture` hold HTML, from our own Markdown renderer and our own figures; everything else is escaped.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from reproduction.palette import look

GLYPHS = {"o": "●", "s": "■", "^": "▲", "v": "▼", "<": "◀", ">": "▶", "D": "◆", "P": "✚", "X": "✖", "h": "⬢", "*": "★"}
"""matplotlib's markers as characters: a method's mark beside its name is the one that it has in the figures."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method's name with its mark and its hue."""

    id: str
    label: str

    @property
    def hue(self) -> str:
        return look(self.id).hue

    @property
    def glyph(self) -> str:
        return GLYPHS[look(self.id).marker]


@dataclass(frozen=True, kw_only=True)
class Prose:
    """Words, as HTML of our own making; ``warns`` sets them off."""

    macro: ClassVar[str] = "prose"
    html: Markup
    warns: bool = False


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What is not there yet, and the command that makes it."""

    macro: ClassVar[str] = "missing"
    what: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure: ``html`` is an <svg> or an <img> that carries its alternative text."""

    macro: ClassVar[str] = "picture"
    id: str
    title: str
    caption: str
    html: Markup
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """A plain table: headings and rows of text. ``numeric`` are the places of the columns that stand to the right."""

    macro: ClassVar[str] = "data_table"
    id: str
    caption: str
    headings: list[str]
    rows: list[list[str]]
    numeric: frozenset[int] = frozenset()
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Value:
    """One result as printed; in percent with the ends of the strip that shows its interval on 0 to 100."""

    text: str
    spread: str = ""
    interval: str = ""
    low: float | None = None
    high: float | None = None
    best: bool = False
    dagger: bool = False
    beside: str = ""


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One method's line; a value that is None is missing."""

    method: Method
    facts: list[str]
    values: list[Value | None]


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Methods × benchmarks, grouped by base model. ``printed``: the paper's numbers, in a block of their own look."""

    macro: ClassVar[str] = "result_table"
    id: str
    caption: str
    facts: list[str]
    headings: list[str]
    groups: list[tuple[str, list[ResultRow]]]
    printed: bool


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Blocks side by side where the window is wide enough, one below the other where it is not."""

    macro: ClassVar[str] = "beside"
    blocks: list[object]


@dataclass(frozen=True, kw_only=True)
class Details:
    """Blocks behind a line that opens them."""

    macro: ClassVar[str] = "details"
    summary: str
    blocks: list[object]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper with what its tables say about it, and ours."""

    id: str
    where: str
    kind: str
    quote: str
    expression: str
    printed: str
    verdict: str
    note: str
    ours: str
    ours_scale: str
    ours_verdict: str
    real: str
    real_verdict: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A filter of the audit: the ``values`` of one field with how many claims have each, and its field's name."""

    field: str
    legend: str
    values: list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The claims and the filters over them; ``real``: a real model says something of one of them at least."""

    macro: ClassVar[str] = "audit"
    claims: list[Claim]
    choices: list[Choice]
    real: bool


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under its own heading."""

    id: str
    title: str
    lead: str
    command: str
    blocks: list[object] = field(default_factory=list)
