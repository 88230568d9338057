"""Sweeps with one panel per column: Figure 4 (Table 7 by trainable parameters) and Table 8 (clusters).

Our values and the paper's are in separate bands with their own axes; the paper's has a tinted background.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduction.palette import INK, MUTED, PANEL, look
from reproduction.palette import PAPER as WHITE
from reproduction.report.figures.sources import Absent, Rows, Sources, number
from reproduction.report.figures.style import Plate, thousands, wrapped
from reproduction.report.grid import PAPER, SMALL, Column, kind_of
from reproduction.report.measures import PERCENT
from reproduction.report.standings import SWEEPS

CURVES = {"lora": "LoRA", "idlora": "ID-LoRA", "idlora_half": "ID-LoRA at half the rank"}
"""Swept methods; other rows of a table, such as the untuned base, are not in the figure."""

CLUSTERS = 4
"""k of ``idlora`` and ``idlora_half`` themselves; their variants idlora_k2 … have k in the name."""

SPAN = 10
"""Minimum range of a vertical axis in percentage points; a smaller one would magnify differences of a few items."""

ACROSS = 3  # panels side by side
HIGH, HEAD, NOTE = 1.7, 0.75, 0.2  # inches of a row of panels, of a band's title and horizontal axis, of a note
CLOSE = 0.055
"""Share of the horizontal axis below which the labels of two budgets would overlap."""

Point = tuple[float, float, tuple[float, float] | None]
"""x in the sweep's unit, the column's value, and its 95 % interval (None if unknown)."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """Panels of one source, one per column, and the points of each (column's id, curve) in the order of x."""

    title: str
    columns: list[Column]
    scale: str
    series: dict[tuple[str, str], list[Point]]
    tinted: bool

    @property
    def curves(self) -> list[str]:
        return list(dict.fromkeys(curve for _, curve in self.series))

    @property
    def rows(self) -> int:
        return -(-len(self.columns) // ACROSS)

    @property
    def height(self) -> float:
        return HEAD + HIGH * self.rows + (0 if self.tinted else NOTE)


Locate = Callable[[str, str], tuple[str, float] | None]
"""(base key, method) → its curve (one of `CURVES`) and x, or None for a row outside the sweep."""


def figure4(sources: Sources) -> Plate:
    """Draw the sweeps of LoRA and ID-LoRA in Table 7 by trainable parameters. Raises `Absent`, `GridError`."""
    counted = sources.rows(sources.results / "counts" / "percentages.csv", command="make table6")
    theirs = _by_count([row for row in counted if row["table"] == "table7"], "trainable")
    return _plate(
        _bands(sources, "table7", ours=_by_count(sources.table("table7"), "parameters_trainable"), theirs=theirs),
        name="figure4",
        title="Figure 4: LoRA and ID-LoRA by trainable parameters",
        axis="trainable parameters, counted, on a logarithmic axis with a tick at each budget, in its method's colour",
        pairs=SWEEPS["table7"],
        unit="trainable parameters",
        set_ticks=_tick_budgets,
    )


def clusters(sources: Sources) -> Plate:
    """Draw Table 8: ID-LoRA by k, also at half its rank if the table has that. Raises `Absent`, `GridError`."""
    return _plate(
        _bands(sources, "table8", ours=_number_of_clusters, theirs=_number_of_clusters),
        name="table8",
        title="Table 8: ID-LoRA by the number of clusters",
        axis="clusters k (more of them also mean a larger router)",
        pairs=SWEEPS["table8"],
        unit="clusters k",
        set_ticks=_tick_steps,
    )


def _by_count(rows: Rows, column: str) -> Locate:
    counts = {(row["base"], row["method"]): number(row, column) for row in rows}

    def locate(base: str, method: str) -> tuple[str, float] | None:
        curve, count = method.split("_")[0], counts.get((base, method))
        return (curve, count) if curve in CURVES and count is not None else None

    return locate


def _number_of_clusters(base: str, method: str) -> tuple[str, float] | None:
    found = re.fullmatch(r"(idlora(?:_half)?)(?:_k(\d+))?", method)
    return (found[1], float(found[2] or CLUSTERS)) if found else None


def _bands(sources: Sources, table: str, *, ours: Locate, theirs: Locate) -> tuple[Band, Band]:
    """Return our band and the paper's."""
    grid, scale, rows = sources.grid(table), sources.scale, sources.table(table)
    own = {}
    for row in rows:
        for column in (each.id for each in grid.columns_at(scale)):
            if (value := number(row, column)) is not None:
                low, high = number(row, f"{column}_ci_low"), number(row, f"{column}_ci_high")
                interval = None if low is None or high is None else (low, high)
                own[row["base"], row["method"], column] = value, interval
    if not own:
        raise Absent(f"any value of {table}", sources.make(table))
    paper = {key: (value.value, None) for key, value in grid.paper.items()}
    labels = ", ".join(dict.fromkeys(row["base_label"] for row in rows))
    words = {PAPER: "the paper's scale", SMALL: "the small scale"}.get(kind_of(scale), f"embedded scale “{scale}”")
    printed = ", ".join(base["label"][PAPER] for base in grid.bases.values())

    def band(values: Mapping, locate: Locate, *, scale: str, title: str) -> Band:
        series: dict[tuple[str, str], list[Point]] = {}
        for (base, method, column), (value, interval) in values.items():
            if found := locate(base, method):
                series.setdefault((column, found[0]), []).append((found[1], value, interval))
        columns = [each for each in grid.columns_at(scale) if any(column == each.id for column, _ in series)]
        ordered = {key: sorted(points, key=lambda point: point[0]) for key, points in series.items()}
        return Band(title=title, columns=columns, scale=scale, series=ordered, tinted=values is paper)

    return (
        band(own, ours, scale=scale, title=f"Ours · {labels} · {words}"),
        band(paper, theirs, scale=PAPER, title=f"The paper's numbers · {printed}"),
    )


def _plate(
    bands: tuple[Band, Band],
    *,
    name: str,
    title: str,
    axis: str,
    pairs: str,
    unit: str,
    set_ticks: Callable[[Axes, Band], None],
) -> Plate:
    ours, paper = bands
    losses = any(each.measure.lower_is_better for each in ours.columns)

    def draw(figure: Figure) -> None:
        curves = list(dict.fromkeys(curve for band in bands for curve in band.curves))
        parts = figure.subfigures(len(bands), 1, hspace=0.01, height_ratios=[band.height for band in bands])
        for part, band in zip(parts, bands, strict=True):
            part.suptitle(band.title, x=0.008, ha="left", fontweight="bold")
            if band.tinted:
                part.set_facecolor(PANEL)
            else:
                part.supxlabel(
                    "bars: how well these items tell one value; differences on the same items: "
                    f"tables/{pairs}.md", x=0.008, ha="left", fontsize=8, color=MUTED,
                )  # fmt: skip
            panels = part.subplots(band.rows, ACROSS, squeeze=False, sharex=True).flat
            for place, (axes, column) in enumerate(zip(panels, band.columns, strict=False)):
                _draw_panel(axes, band, column)
                axes.set_title(wrapped(column.heading_at(band.scale), 40), fontweight="normal")
                if place % ACROSS == 0 or column.measure != band.columns[place - 1].measure:
                    axes.set_ylabel("nats a token" if column.measure.lower_is_better else "correct (%)")
                if place + ACROSS >= len(band.columns):
                    axes.set_xlabel(unit)
                    axes.tick_params(labelbottom=True)
                set_ticks(axes, band)
            for axes in panels[len(band.columns) :]:
                axes.remove()
        if len(curves) > 1:
            handles = [Line2D([], [], **_style(each), label=CURVES[each]) for each in curves]
            figure.legend(handles=handles, loc="upper right", ncols=len(handles), borderaxespad=0.2)

    return Plate(
        name=name,
        title=title,
        caption=(
            f"Upper panels: {ours.title.removeprefix('Ours · ')}, one for each column. Horizontal: {axis}; "
            f"vertical: percent correct{', or held-out loss, lower is better' if losses else ''}. Bars are 95 % "
            "intervals over items (over seeds and items where there are several seeds). The tinted panels are "
            "the paper's table on its own axes, which prints no intervals."
        ),
        alt=_alt(ours, unit=unit),
        size=(8.8, ours.height + paper.height),
        draw=draw,
    )


def _style(curve: str) -> dict[str, str]:
    own = look(curve)
    half = {"linestyle": "--", "markerfacecolor": WHITE} if curve == "idlora_half" else {}
    return {"color": own.colour, "marker": own.marker, **half}


def _draw_panel(axes: Axes, band: Band, column: Column) -> None:
    for curve in band.curves:
        points = band.series.get((column.id, curve), [])
        axes.plot([x for x, _, _ in points], [value for _, value, _ in points], **_style(curve))
        for x, _, interval in points:
            if interval:
                axes.plot([x] * 2, interval, color=look(curve).colour, linewidth=0.7, alpha=0.35)
    axes.margins(x=0.12, y=0.12)
    if column.measure is PERCENT:
        low, high = axes.get_ylim()
        slack = max(0.0, SPAN - (high - low)) / 2
        axes.set_ylim(low - slack, high + slack)


def _tick_steps(axes: Axes, band: Band) -> None:
    axes.set_xticks(sorted({x for points in band.series.values() for x, _, _ in points}))


def _tick_budgets(axes: Axes, band: Band) -> None:
    """Set ticks at the counts of parameters in the methods' colours; labels of close neighbours are slanted."""
    colours: dict[float, set[str]] = {}
    for (_, curve), points in band.series.items():
        for x, _, _ in points:
            colours.setdefault(x, set()).add(look(curve).colour)
    xs = sorted(colours)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(xs, map(thousands, xs), rotation=90, fontsize=7)
    close = [math.log(b / a) < CLOSE * math.log(xs[-1] / xs[0]) for a, b in pairwise(xs)]
    lean = {(False, True): "right", (True, False): "left"}
    for x, tick, before, after in zip(xs, axes.xaxis.get_major_ticks(), [False, *close], [*close, False], strict=True):
        colour = INK if len(colours[x]) > 1 else min(colours[x])
        tick.label1.set(color=colour, ha=lean.get((before, after), "center"))


def _alt(band: Band, *, unit: str) -> str:
    measures = {column.id: column.measure for column in band.columns}
    parts = []
    for (column, curve), points in band.series.items():
        ends = (f"{y:.{measures[column].digits}f} at {thousands(x)}" for x, y, _ in (points[0], points[-1]))
        parts.append(f"{CURVES[curve]} on {column}, {measures[column].unit}: {f' {unit}, '.join(ends)}")
    return f"Line charts, {band.title}. " + "; ".join(parts) + ". Below, in panels of their own, the paper's numbers."
