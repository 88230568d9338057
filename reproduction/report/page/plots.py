"""Small plots of the page in HTML and CSS: marks and bars on one axis, each line with its numbers as text."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reproduction.report.page.blocks import Block
from reproduction.report.standings import LEVEL, Pair

MINUS = "\u2212"
MARGIN = 0.04
"""Free share of the axis at either end."""


class Mark(NamedTuple):
    """A method's mark at a value; hollow where the value is level with zero."""

    at: float
    method: str
    hollow: bool = False


class Bar(NamedTuple):
    """A bar between two values in a colour, the name of a CSS variable."""

    low: float
    high: float
    colour: str


class Number(NamedTuple):
    """A text of a line, after the mark of a method or a swatch of a colour."""

    text: str
    method: str = ""
    colour: str = ""


class Line(NamedTuple):
    """One line of a plot, after the mark of its method if it has one."""

    label: str
    numbers: Sequence[Number]
    marks: Sequence[Mark] = ()
    bars: Sequence[Bar] = ()
    method: str = ""


def plot(
    lines: Sequence[Line],
    *,
    title: str = "",
    legend: Sequence[Number] = (),
    note: str = "",
    zero: float | None = None,
    ends: tuple[float, float] | None = None,
    axis: tuple[str, str] = ("", ""),
) -> Block:
    """Return a plot with all positions in percent of its axis.

    Args:
        lines: from top to bottom.
        title: above; lines of several numbers have these above their axis.
        legend, note: below.
        zero: value of the vertical line that marks no difference.
        ends: of the axis; by default those of the values, with a margin.
        axis: words at its two ends.
    """
    if ends is None:
        values = [] if zero is None else [zero]
        values += [mark.at for line in lines for mark in line.marks]
        values += [end for line in lines for bar in line.bars for end in bar[:2]]
        room = MARGIN * (max(values) - min(values)) or 1.0  # all are equal
        ends = min(values) - room, max(values) + room

    def place(value: float) -> float:
        return round(100 * (value - ends[0]) / (ends[1] - ends[0]), 2)

    drawn = [
        {
            "label": line.label,
            "method": line.method,
            "numbers": line.numbers,
            "marks": [mark._replace(at=place(mark.at)) for mark in line.marks],
            "bars": [(place(bar.low), round(place(bar.high) - place(bar.low), 2), bar.colour) for bar in line.bars],
        }
        for line in lines
    ]
    shown = {"kind": "plot", "title": title, "legend": legend, "note": note, "lines": drawn, "axis": axis}
    shown |= {"zero": None if zero is None else place(zero)}
    return shown | {"stacked": any(len(line.numbers) > 1 for line in lines)}


def leads(pairs: Iterable[tuple[Pair, str]], *, title: str, note: str = "", other: str = "") -> Block:
    """Return the lead of each pair with its interval, right of zero where the first named in the axis is ahead.

    Args:
        pairs: with the label of each line, whose mark is that of the pair's first method.
        title, note: of the plot.
        other: name of the second method of every pair, for the axis.
    """
    lines = [
        Line(
            label=label,
            method=pair.first,
            numbers=[Number(pair.signed.replace("-", MINUS))],
            marks=[Mark(pair.lead, pair.first, pair.verdict == LEVEL)],
            bars=[Bar(pair.low, pair.high, "")],
        )
        for pair, label in pairs
    ]
    return plot(lines, title=title, note=note, zero=0.0, axis=(f"← {other} is ahead", f"ahead of {other} →"))
