"""Every method against its reference, as a dot and an interval: what significance/<table>.csv says, at a glance."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduction.palette import MUTED, PAPER, look
from reproduction.report.figures.sources import Absent, Rows, Sources, number
from reproduction.report.figures.style import Plate, signed, wrapped
from reproduction.report.grid import UNTUNED, Column, Grid
from reproduction.report.ordering import AT_FLOOR

ACROSS = 3  # panels side by side
KEY, NAME = 0.28, 0.2  # inches of the key, and of a line of a base's name
HEAD, LINE, TITLE = 0.75, 0.19, 0.15  # inches of a panel without its lines, of each line, of a line of its title
ROOM, LETTER, BOLD = 2.65, 0.07, 0.08  # inches of a panel from side to side, of a method's letter, of a base's
WIDE, LABEL = 36, 28  # characters of a panel's title on one line, and of a name on the axis
SEEDS, ITEMS = 1.0, 2.2
"""Points that a bar is thick: the interval over seeds and items together, and that over items."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a panel: a method on one base, its difference and the intervals, in points (None: not tested)."""

    method: str
    label: str
    found: dict[str, str] | None

    @property
    def floor(self) -> str:
        """Where a trained method of the base stands on this column, "chance" or "zero": nobody is ahead then."""
        return self.found.get("floor", "") if self.found else ""

    @property
    def direction(self) -> int:
        """+1 where the value is higher beyond noise, -1 where lower, 0 where neither can be said."""
        low, high = self.widest
        return 0 if self.floor else (low > 0) - (high < 0)

    @property
    def widest(self) -> tuple[float, float]:
        """The interval that a claim about methods needs: over seeds and items where there are several seeds."""
        return _ends(self.found, "seeds_ci") or _ends(self.found, "ci")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One column on one base: its title and what stands below its axis, and a line for each method."""

    title: str
    axis: str
    lines: list[Line]


@dataclass(frozen=True, kw_only=True)
class Band:
    """The panels of one base, on axes of their own: what another base's differences span would hide these."""

    title: str
    panels: list[Panel]

    @property
    def rows(self) -> list[list[Panel]]:
        return [self.panels[start : start + ACROSS] for start in range(0, len(self.panels), ACROSS)]

    @property
    def height(self) -> float:
        """Inches."""
        titles = sum(max(panel.title.count("\n") + 1 for panel in row) for row in self.rows)
        return (
            NAME * (self.title.count("\n") + 1)
            + len(self.rows) * (HEAD + LINE * len(self.panels[0].lines))
            + TITLE * titles
        )


def differences(sources: Sources, table: str) -> Plate:
    """The dot plot of one table. Raises `Absent` where its tests were not made, `GridError` for a broken grid.

    Leaves out the untuned base: it lies so far off that on one axis with it all methods would be one point.
    """
    grid, tests = sources.grid(table), sources.tests(table)
    rows = [row for row in tests if row["method"] != UNTUNED]
    columns = [each for each in grid.columns_at(sources.scale) if any(_is_of(row, each) for row in rows)]
    if not columns:
        raise Absent(f"a test of any column of {table}", sources.make(table))
    names = "\n".join(_name(grid.label(row["method"], sources.scale)) for row in rows)
    longest = max(map(len, names.split("\n")))
    width = 0.3 + LETTER * longest + ROOM * min(ACROSS, len(columns))
    of_bases = [[row for row in rows if row["base"] == base] for base in grid.bases]
    bands = [_band(grid, columns, each, scale=sources.scale, width=width) for each in of_bases if each]
    return Plate(
        name=f"{table}_differences",
        title=f"{grid.title.split(':')[0]}: each method against {_reference(grid, sources.scale)}",
        caption=_caption(grid, rows, scale=sources.scale, base=len(tests) > len(rows)),
        alt=_alt(bands, grid, scale=sources.scale),
        size=(width, KEY + sum(band.height for band in bands)),
        draw=_drawing(bands, _key(rows), across=min(ACROSS, len(columns))),
    )


def _band(grid: Grid, columns: list[Column], rows: Rows, *, scale: str, width: float) -> Band:
    """The band of one base from its rows of the tests."""
    methods = [method for method in grid.methods if any(row["method"] == method for row in rows)]
    reference = _reference(grid, scale).split(" (")[0]
    panels = []
    for column in columns:
        found = {row["method"]: row for row in rows if _is_of(row, column)}
        lines = [Line(method=each, label=grid.label(each, scale), found=found.get(each)) for each in methods]
        better = "; ← better" if column.measure.lower_is_better else ""
        panels.append(
            Panel(
                title=wrapped(column.heading_at(scale), WIDE) + _floor(lines),
                axis=f"difference from {reference}\n({column.measure.points}{better})",
                lines=lines,
            )
        )
    title = textwrap.fill(rows[0]["base_label"], int(width / BOLD), break_on_hyphens=False)
    return Band(title=title, panels=[panel for panel in panels if any(line.found for line in panel.lines)])


def _drawing(bands: list[Band], key: list[Line2D], *, across: int) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        top, *parts = figure.subfigures(len(bands) + 1, 1, height_ratios=[KEY, *(band.height for band in bands)])
        top.legend(handles=key, loc="upper left", ncols=len(key), borderaxespad=0.4)
        for part, band in zip(parts, bands, strict=True):
            part.suptitle(band.title, x=0.008, ha="left", fontweight="bold")
            places = part.subplots(len(band.rows), across, squeeze=False, sharey=True)
            for axes in places.flat[len(band.panels) :]:
                axes.set_visible(False)
            for axes, panel in zip(places.flat, band.panels, strict=False):
                _panel(axes, panel.lines)
                axes.set_title(panel.title, fontweight="normal")
                axes.set_xlabel(panel.axis)
            names = [_name(line.label) for line in band.panels[0].lines]
            for axes in places[:, 0]:
                axes.set_yticks(range(len(names)), names)
                axes.set_ylim(len(names) - 0.4, -0.6)

    return draw


def _key(rows: Rows) -> list[Line2D]:
    """What the marks mean, for those that the figure can have."""
    bars, inside = [("95 % interval over items", ITEMS)], "the bar"
    if _several(rows):
        bars.append(("over seeds and items", SEEDS))
        inside = "the thin bar" + ("" if all(row["seeds_ci_low"] for row in rows) else " (if none, the thick)")
    floor = ", or at chance or zero" if _at_floor(rows) else ""
    hollow = {"color": MUTED, "marker": "o", "markersize": 5.5, "markerfacecolor": PAPER, "linestyle": ""}
    return [
        *(Line2D([], [], color=MUTED, linewidth=width, label=label) for label, width in bars),
        Line2D([], [], **hollow, label=f"hollow: zero inside {inside}{floor}"),
    ]


def _several(rows: Rows) -> bool:
    """Whether any interval is over several seeds."""
    return any(row["seeds_ci_low"] for row in rows)


def _at_floor(rows: Rows) -> bool:
    return any(row.get("floor") for row in rows)


def _floor(lines: list[Line]) -> str:
    """The lines of a panel's title that say why no method is called ahead, where none is; else empty."""
    where = next((AT_FLOOR[line.floor] for line in lines if line.floor), "")
    return f"\n{wrapped(f'{where}: no method is called ahead', WIDE)}" if where else ""


def _panel(axes: Axes, lines: list[Line]) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for height, line in enumerate(lines):
        if line.found is None:
            continue
        own = look(line.method)
        for part, width in (("seeds_ci", SEEDS), ("ci", ITEMS)):
            if ends := _ends(line.found, part):
                axes.plot(ends, [height] * 2, color=own.colour, linewidth=width, solid_capstyle="butt")
        face = own.colour if line.direction else PAPER
        axes.plot(
            number(line.found, "difference"), height, color=own.colour, marker=own.marker, markersize=5.5,
            markerfacecolor=face, linestyle="",
        )  # fmt: skip
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    signed(axes)


def _name(label: str) -> str:
    """A method's name as it stands on the axis, over as many lines of text as it needs."""
    return textwrap.fill(label, LABEL, break_on_hyphens=False)


def _ends(row: dict[str, str], name: str) -> tuple[float, float] | None:
    low, high = number(row, f"{name}_low"), number(row, f"{name}_high")
    return None if low is None or high is None else (low, high)


def _is_of(row: dict[str, str], column: Column) -> bool:
    return row["column"] == column.id


def _reference(grid: Grid, scale: str) -> str:
    return grid.label(grid.reference, scale) if isinstance(grid.reference, str) else "its partner"


def _caption(grid: Grid, rows: Rows, *, scale: str, base: bool) -> str:
    sizes = list(dict.fromkeys(f"{row['items']} {row['unit']}s ({row['benchmark']})" for row in rows))
    seeds = sorted({int(row["seeds"]) for row in rows})
    counted = " or ".join(map(str, seeds))
    several = _several(rows)
    floor = ", or stands where a trained method is at chance or zero" if _at_floor(rows) else ""
    axes = "Each base has its own axes, whose scales differ. " if len({row["base"] for row in rows}) > 1 else ""
    thin = " thin over seeds and items together;" if several else ""
    plural = "" if counted == "1" else "s"
    return (
        f"Each method minus {_reference(grid, scale)} on the same items; right of zero the method has the higher "
        "value, which is better for scores and worse for losses. Bars are 95 % bootstrap intervals: thick over items,"
        f"{thin} a hollow mark has zero inside {'the thin bar' if several else 'its bar'}{floor}. "
        f"{axes}{'The untuned base is tested and not drawn. ' if base else ''}n = {', '.join(sizes)}; {counted} "
        f"seed{plural} a method."
    )


def _alt(bands: list[Band], grid: Grid, *, scale: str) -> str:
    drawn = [line for band in bands for panel in band.panels for line in panel.lines if line.found]
    floor = sum(bool(each.floor) for each in drawn)
    above, below, neither = (sum(each.direction == sign for each in drawn) for sign in (1, -1, 0))
    at_floor = f", {floor} where a trained method is at chance or zero" if floor else ""
    return (
        f"Dot plot of {len(drawn)} differences from {_reference(grid, scale)}: {above} higher, {below} lower, "
        f"{neither - floor} with zero inside the interval{at_floor}. The numbers stand in the table of tests."
    )
