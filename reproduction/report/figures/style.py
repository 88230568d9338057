"""A figure and its three formats: PNG and PDF files, and SVG for the page that follows the light or dark theme.

Figures are drawn in the colours for white paper. In the page each colour becomes a CSS variable (`VARIABLES`), so one
drawing serves both themes. The same input gives the same bytes: no dates, no random ids.
"""

import io
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reproduction.palette import HUES, INK, MUTED, PANEL, PAPER, RC, RULE
from reproduction.records.files import one_sentence

VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PANEL: "--panel", PAPER: "--paper"} | {
    hue.light: f"--hue-{name}" for name, hue in HUES.items()
}
"""Permitted colours → CSS variables that the page defines."""

MARGIN = 0.08  # inches around panels; room for a page whose font runs wider than the measured one

OFF_MIDWAY = 1.37e-3
"""Offset added to a coordinate before rounding: many are exact decimals, midway between two rounded values."""

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True, kw_only=True)
class Plate:
    """A figure with its texts. ``draw`` fills an empty matplotlib figure of ``size`` (width, height) in inches.

    ``caption`` describes the plotted quantity, the units and the intervals; ``alt`` is the text for readers who cannot
    see the figure.
    """

    name: str
    title: str
    caption: str
    alt: str
    size: tuple[float, float]
    draw: Callable[[Figure], None]

    def save(self, folder: Path) -> list[Path]:
        """Write ``folder``/<name>.png and .pdf; returns their paths. Raises `RecordError` if writing fails."""
        paths = {folder / f"{self.name}.png": ("Software",)}
        paths[folder / f"{self.name}.pdf"] = ("CreationDate", "Creator", "Producer")
        with one_sentence("write", folder), self.drawn() as figure:
            folder.mkdir(parents=True, exist_ok=True)
            for path, left_out in paths.items():
                figure.savefig(path, metadata=dict.fromkeys(left_out))
        return list(paths)

    def svg(self) -> str:
        """The figure as an ``<svg>`` element for the page: colours as CSS variables, ids prefixed with the name."""
        text = io.StringIO()
        with self.drawn() as figure:
            figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        return inline_svg(text.getvalue(), name=self.name, alt=self.alt)

    @contextmanager
    def drawn(self) -> Iterator[Figure]:
        """Yield the figure, laid out at the resolution of its PNG."""
        with matplotlib.rc_context(RC):
            figure = Figure(figsize=self.size, layout="constrained")
            figure.get_layout_engine().set(w_pad=MARGIN, h_pad=MARGIN)
            FigureCanvasAgg(figure)
            self.draw(figure)
            figure.draw_without_rendering()  # lays out once, for all formats
            figure.set_layout_engine("none")
            # The last bits of positions from the layout solver differ from one drawing to the next.
            for axes in figure.axes:
                axes.set_position([round(each, 6) for each in axes.get_position().bounds])
            for part in figure.subfigs:
                part.bbox_relative.set_points(part.bbox_relative.get_points().round(6))
            for part in (figure, *figure.subfigs):
                if (title := part._suptitle) is not None:
                    title.set_position([round(each, 6) for each in title.get_position()])
            yield figure


def inline_svg(document: str, *, name: str, alt: str) -> str:
    """Convert an SVG document to an HTML element: no metadata, no fixed size, unique ids, `VARIABLES` for colours.

    Ids are numbers and coordinates have two decimals: the last bits of matplotlib's coordinates, and the ids hashed
    from them, differ from process to process.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(document)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    referenced = dict.fromkeys(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', document))
    ids = {own: f"{name}-{number}" for number, own in enumerate(referenced)}
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in ids:
            element.set("id", ids[own])
        if XLINK in element.attrib:
            element.set(XLINK, f"#{ids[element.get(XLINK)[1:]]}")
        for attribute, value in element.attrib.items():
            value = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", value)
            value = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]) + OFF_MIDWAY:.2f}", value)
            if attribute == "style":
                value = re.sub(r"#[0-9a-f]{6}\b", _variable, value)
                value = re.sub(r"(font:[^;]*?)'[^;]+", r"\1var(--sans)", value)
            element.set(attribute, value)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("style", f"--natural: {width:g}")
    return re.sub(r">\s+<", ">\n<", ElementTree.tostring(root, encoding="unicode"))  # without indentation


def _variable(colour: re.Match[str]) -> str:
    if colour[0] not in VARIABLES:
        raise ValueError(f"a figure draws with {colour[0]}, which is no colour of the palette; use one of its hues")
    return f"var({VARIABLES[colour[0]]})"


def wrapped(heading: str, width: int) -> str:
    """Wrap a column's heading above a panel that holds ``width`` characters.

    A part in parentheses begins a line.
    """
    parts = heading.replace(" (", "\n(").split("\n")
    return "\n".join(line for part in parts for line in textwrap.wrap(part, width, break_on_hyphens=False))


def signed(axes: Axes) -> None:
    """Format the tick labels of differences with their sign."""
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")


def thousands(value: float) -> str:
    """Format a count of parameters: 43K, 83.9M, 1.3B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{round(value / size, 0 if value / size >= 100 else 1):g}{letter}"
    return f"{value:g}"
