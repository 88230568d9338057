"""Dot plots of significance/<table>.csv: every method's difference from its reference, with intervals."""

import textwrap
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
KEY, NAME = 0.28, 0.2  # inches of the legend, and of a line of a base's name
HEAD, LINE, TITLE = 0.75, 0.19, 0.15  # inches of a panel without its lines, of each line, of a line of its title
ROOM, LETTER, BOLD = 2.65, 0.07, 0.08  # inches of a panel's width, of a letter of a method's name, of a base's
WIDE, LABEL = 36, 28  # maximum characters per line of a panel's title, and of a name on the axis
SEEDS, ITEMS = 1.0, 2.2
"""Bar thickness in points: interval over seeds and items, and interval over items."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One column on one base: a line for each method, with its row of the tests (None: not tested)."""

    title: str
    axis: str
    lines: dict[str, dict[str, str] | None]


@dataclass(frozen=True, kw_only=True)
class Band:
    """The panels of one base. Each base has its own axes: wide differences of one base would hide those of another."""

    title: str
    names: list[str]
    panels: list[Panel]

    @property
    def rows(self) -> list[list[Panel]]:
        return [self.panels[start : start + ACROSS] for start in range(0, len(self.panels), ACROSS)]

    @property
    def height(self) -> float:
        """Height in inches."""
        titles = sum(max(panel.title.count("\n") + 1 for panel in row) for row in self.rows)
        name = NAME * (self.title.count("\n") + 1)
        return name + len(self.rows) * (HEAD + LINE * len(self.names)) + TITLE * titles


def differences(sources: Sources, table: str) -> Plate:
    """Draw the dot plot of one table, without the untuned base, whose distance would shrink all others to one point.

    Raises `Absent` if its tests were not made, `GridError` for a broken grid.
    """
    grid, tests, scale = sources.grid(table), sources.tests(table), sources.scale
    rows = [row for row in tests if row["method"] != UNTUNED]
    columns = [each for each in grid.columns_at(scale) if any(row["column"] == each.id for row in rows)]
    if not columns:
        raise Absent(f"a test of any column of {table}", sources.make(table))
    reference = grid.label(grid.reference, scale) if isinstance(grid.reference, str) else "its partner"
    names = "\n".join(_name(grid.label(row["method"], scale)) for row in rows)
    across = min(ACROSS, len(columns))
    width = 0.3 + LETTER * max(map(len, names.split("\n"))) + ROOM * across
    of_bases = [[row for row in rows if row["base"] == base] for base in grid.bases]
    bands = [
        _band(grid, columns, each, scale=scale, width=width, reference=reference.split(" (")[0])
        for each in of_bases
        if each
    ]

    def draw(figure: Figure) -> None:
        top, *parts = figure.subfigures(len(bands) + 1, 1, height_ratios=[KEY, *(band.height for band in bands)])
        key = _key(rows)
        top.legend(handles=key, loc="upper left", ncols=len(key), borderaxespad=0.4)
        for part, band in zip(parts, bands, strict=True):
            part.suptitle(band.title, x=0.008, ha="left", fontweight="bold")
            places = part.subplots(len(band.rows), across, squeeze=False, sharey=True)
            for axes in places.flat[len(band.panels) :]:
                axes.set_visible(False)
            for axes, panel in zip(places.flat, band.panels, strict=False):
                _draw_panel(axes, panel)
            for axes in places[:, 0]:
                axes.set_yticks(range(len(band.names)), band.names)
                axes.set_ylim(len(band.names) - 0.4, -0.6)

    return Plate(
        name=f"{table}_differences",
        title=f"{grid.title.split(':')[0]}: each method against {reference}",
        caption=_caption(rows, reference=reference, base=len(tests) > len(rows)),
        alt=_alt(bands, reference),
        size=(width, KEY + sum(band.height for band in bands)),
        draw=draw,
    )


def _band(grid: Grid, columns: list[Column], rows: Rows, *, scale: str, width: float, reference: str) -> Band:
    """Return the band of one base from its rows of the tests."""
    methods = [method for method in grid.methods if any(row["method"] == method for row in rows)]
    panels = []
    for column in columns:
        found = {row["method"]: row for row in rows if row["column"] == column.id}
        floor = next((AT_FLOOR[row["floor"]] for row in found.values() if row.get("floor")), "")
        title = wrapped(column.heading_at(scale), WIDE)
        title += f"\n{wrapped(f'{floor}: no method is called ahead', WIDE)}" if floor else ""
        better = "; ← better" if column.measure.lower_is_better else ""
        axis = f"difference from {reference}\n({column.measure.points}{better})"
        if found:
            panels.append(Panel(title=title, axis=axis, lines={method: found.get(method) for method in methods}))
    title = textwrap.fill(rows[0]["base_label"], int(width / BOLD), break_on_hyphens=False)
    return Band(title=title, names=[_name(grid.label(method, scale)) for method in methods], panels=panels)


def _name(label: str) -> str:
    """Wrap a method's name for the axis."""
    return textwrap.fill(label, LABEL, break_on_hyphens=False)


def _key(rows: Rows) -> list[Line2D]:
    """Return legend entries for the marks that can occur."""
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
    """Whether any trained method of the base is at chance or zero; then no method is called ahead."""
    return any(row.get("floor") for row in rows)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for height, (method, row) in enumerate(panel.lines.items()):
        if row is None:
            continue
        own = look(method)
        for part, width in (("seeds_ci", SEEDS), ("ci", ITEMS)):
            if ends := _ends(row, part):
                axes.plot(ends, [height] * 2, color=own.colour, linewidth=width, solid_capstyle="butt")
        face = own.colour if _direction(row) else PAPER
        axes.plot(
            number(row, "difference"), height, color=own.colour, marker=own.marker, markersize=5.5,
            markerfacecolor=face, linestyle="",
        )  # fmt: skip
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    signed(axes)
    axes.set_title(panel.title, fontweight="normal")
    axes.set_xlabel(panel.axis)


def _direction(row: dict[str, str]) -> int:
    """Return +1 if the value is higher beyond noise, -1 if lower, 0 otherwise.

    With several seeds, the interval over seeds and items decides, since the claim is about methods.
    """
    low, high = _ends(row, "seeds_ci") or _ends(row, "ci")
    return 0 if row.get("floor") else (low > 0) - (high < 0)


def _ends(row: dict[str, str], name: str) -> tuple[float, float] | None:
    low, high = number(row, f"{name}_low"), number(row, f"{name}_high")
    return None if low is None or high is None else (low, high)


def _caption(rows: Rows, *, reference: str, base: bool) -> str:
    sizes = ", ".join(dict.fromkeys(f"{row['items']} {row['unit']}s ({row['benchmark']})" for row in rows))
    counted = " or ".join(map(str, sorted({int(row["seeds"]) for row in rows})))
    thin, inside = (" thin over seeds and items together;", "the thin bar") if _several(rows) else ("", "its bar")
    floor = ", or stands where a trained method is at chance or zero" if _at_floor(rows) else ""
    axes = "Each base has its own axes, whose scales differ. " if len({row["base"] for row in rows}) > 1 else ""
    return (
        f"Each method minus {reference} on the same items; right of zero the method has the higher "
        "value, which is better for scores and worse for losses. Bars are 95 % bootstrap intervals: thick over items,"
        f"{thin} a hollow mark has zero inside {inside}{floor}. "
        f"{axes}{'The untuned base is tested and not drawn. ' if base else ''}n = {sizes}; {counted} "
        f"seed{'' if counted == '1' else 's'} a method."
    )


def _alt(bands: list[Band], reference: str) -> str:
    drawn = [row for band in bands for panel in band.panels for row in panel.lines.values() if row]
    floor = sum(bool(row.get("floor")) for row in drawn)
    above, below, neither = (sum(_direction(row) == sign for row in drawn) for sign in (1, -1, 0))
    at_floor = f", {floor} where a trained method is at chance or zero" if floor else ""
    return (
        f"Dot plot of {len(drawn)} differences from {reference}: {above} higher, {below} lower, "
        f"{neither - floor} with zero inside the interval{at_floor}. The numbers stand in the table of tests."
    )
