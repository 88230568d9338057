"""One number swept, one panel a benchmark: Figure 4 (trainable parameters) and Table 8 (clusters).

Ours stand in one band of panels, the paper's in another with its own axes and a tinted ground: never on one axis.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from idlora.report.figures.palette import look
from idlora.report.figures.sources import Absent, Sources, number
from idlora.report.figures.style import PANEL, Plate, thousands, wrapped
from idlora.report.grid import PAPER, SMALL, Grid, kind_of

FOUR = ("gsm8k", "mmlu", "commonsenseqa", "pass@1")
"""The benchmarks of Figure 4; pass@5 and pass@10 stand in Table 7."""

FAMILIES = {"lora": "LoRA", "idlora": "ID-LoRA"}
"""What is swept; a table's other rows, such as the untuned base, are no part of the figure."""

CLUSTERS = 4
"""k of the method ``idlora`` itself; its variants idlora_k2 … carry theirs in their names."""

SPAN = 10
"""Percentage points that a vertical axis shows at least: less would magnify what a handful of items decides."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mark: ``x`` in the sweep's unit, percent correct, and its 95 % interval (None where none is known)."""

    x: float
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Band:
    """One row of panels: whose numbers, and per benchmark and method the points in the order of x."""

    title: str
    headings: dict[str, str]
    series: dict[tuple[str, str], list[Point]]
    tinted: bool

    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for _, method in self.series))


def figure4(sources: Sources) -> Plate:
    """LoRA's and ID-LoRA's sweeps of Table 7 against their trainable counts. Raises `Absent`, `GridError`."""
    ours, paper = _bands(sources, "table7", ours=_counts(sources), theirs=_paper_counts(sources))
    return Plate(
        name="figure4",
        title="Figure 4: LoRA and ID-LoRA at four parameter budgets each",
        caption=(
            f"{_whose(ours)} Horizontal: trainable parameters, counted, on a logarithmic axis; vertical: percent "
            "correct. Bars are 95 % intervals over items (over seeds and items where there are several seeds). "
            "The tinted panels are the paper's Table 7 on its own axes, which prints no intervals."
        ),
        alt=_alt(ours, unit="trainable parameters", spell=thousands),
        size=(8.8, 5.2),
        draw=_drawing([ours, paper], x_label="trainable parameters", counts=True),
    )


def clusters(sources: Sources) -> Plate:
    """Table 8: ID-LoRA with k = 2, 4, 6, 8. Raises `Absent`, `GridError`."""
    ours, paper = _bands(sources, "table8", ours=_number_of_clusters, theirs=_number_of_clusters)
    return Plate(
        name="table8",
        title="Table 8: ID-LoRA by the number of clusters",
        caption=(
            f"{_whose(ours)} Horizontal: clusters k; vertical: percent correct, with 95 % intervals over items (over "
            "seeds and items where there are several seeds). More clusters also mean a larger router. The tinted "
            "panels are the paper's Table 8 on its own axes, without intervals."
        ),
        alt=_alt(ours, unit="clusters", spell=lambda value: f"{value:g}"),
        size=(8.8, 4.8),
        draw=_drawing([ours, paper], x_label="clusters k", counts=False),
    )


Locate = Callable[[str, str], float | None]
"""(base key, method) → x, or None for a row that is no part of the sweep."""


def _bands(sources: Sources, table: str, *, ours: Locate, theirs: Locate) -> tuple[Band, Band]:
    grid = sources.grid(table)
    scale, rows = sources.scale, sources.table(table)
    if not any(number(row, column) is not None for row in rows for column in FOUR):
        raise Absent(f"any value of {table}", sources.make(table))
    own = {
        (row["base"], row["method"], column): (number(row, column), *_ends(row, column))
        for row in rows
        for column in FOUR
        if number(row, column) is not None
    }
    paper = {key: (value.value, None, None) for key, value in grid.paper.items() if key[2] in FOUR}
    labels = ", ".join(dict.fromkeys(row["base_label"] for row in rows))
    words = {PAPER: "the paper's scale", SMALL: "the small scale"}
    scale_words = words.get(kind_of(scale), f"embedded scale “{scale}”")
    return (
        _band(grid, own, ours, scale=scale, title=f"Ours · {labels} · {scale_words}", tinted=False),
        _band(grid, paper, theirs, scale=PAPER, title=f"The paper's numbers · {_paper_labels(grid)}", tinted=True),
    )


def _band(
    grid: Grid,
    values: dict[tuple[str, str, str], tuple[float, float | None, float | None]],
    locate: Locate,
    *,
    scale: str,
    title: str,
    tinted: bool,
) -> Band:
    series: dict[tuple[str, str], list[Point]] = {}
    for (base, method, column), (value, low, high) in values.items():
        x, family = locate(base, method), method.split("_")[0]
        if x is not None and family in FAMILIES:
            interval = None if low is None or high is None else (low, high)
            point = Point(x=x, value=value, interval=interval)
            series.setdefault((column, family), []).append(point)
    headings = {each.id: each.heading_at(scale) for each in grid.columns_at(scale) if each.id in FOUR}
    ordered = {key: sorted(points, key=lambda point: point.x) for key, points in series.items()}
    return Band(title=title, headings=headings, series=ordered, tinted=tinted)


def _ends(row: dict[str, str], column: str) -> tuple[float | None, float | None]:
    return number(row, f"{column}_ci_low"), number(row, f"{column}_ci_high")


def _paper_labels(grid: Grid) -> str:
    return ", ".join(base["label"][PAPER] for base in grid.bases.values())


def _counts(sources: Sources) -> Locate:
    """Trainable parameters of our runs, as their table has them."""
    counted = {(row["base"], row["method"]): number(row, "parameters_trainable") for row in sources.table("table7")}
    return lambda base, method: counted.get((base, method))


def _paper_counts(sources: Sources) -> Locate:
    """Trainable parameters at the paper's scale: counted from the models' shapes, not read off the paper."""
    rows = sources.rows(sources.results / "counts" / "percentages.csv", command="make table6")
    counted = {(row["base"], row["method"]): number(row, "trainable") for row in rows if row["table"] == "table7"}
    return lambda base, method: counted.get((base, method))


def _number_of_clusters(base: str, method: str) -> float | None:
    if method == "idlora":
        return CLUSTERS
    found = re.fullmatch(r"idlora_k(\d+)", method)
    return float(found[1]) if found else None


def _drawing(bands: list[Band], *, x_label: str, counts: bool) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        methods = list(dict.fromkeys(method for band in bands for method in band.methods()))
        parts = figure.subfigures(len(bands), 1, hspace=0.04)
        for part, band in zip(parts, bands, strict=True):
            part.suptitle(band.title, x=0.008, ha="left", fontweight="bold")
            if band.tinted:
                part.set_facecolor(PANEL)
            for axes, (column, heading) in zip(
                part.subplots(1, len(band.headings)), band.headings.items(), strict=True
            ):
                _panel(axes, band, column, counts=counts)
                axes.set_title(wrapped(heading, 26), fontweight="normal")
                axes.set_xlabel(x_label)
            part.axes[0].set_ylabel("correct (%)")
        if len(methods) > 1:
            handles = [
                Line2D([], [], color=look(each).colour, marker=look(each).marker, label=FAMILIES[each])
                for each in methods
            ]
            figure.legend(handles=handles, loc="upper right", ncols=len(handles), borderaxespad=0.2)

    return draw


def _panel(axes: Axes, band: Band, column: str, *, counts: bool) -> None:
    xs = set()
    for method in band.methods():
        points = band.series.get((column, method), [])
        xs |= {point.x for point in points}
        colour, marker = look(method).colour, look(method).marker
        axes.plot([p.x for p in points], [p.value for p in points], color=colour, marker=marker)
        for point in points:
            if point.interval:
                axes.plot([point.x] * 2, point.interval, color=colour, linewidth=0.9, alpha=0.75)
    axes.margins(x=0.12, y=0.12)
    low, high = axes.get_ylim()
    slack = max(0.0, SPAN - (high - low)) / 2
    axes.set_ylim(low - slack, high + slack)
    if counts:
        axes.set_xscale("log")
        ends = sorted(xs)
        ticks = [ends[0], (ends[0] * ends[-1]) ** 0.5, ends[-1]] if len(ends) > 1 else ends
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(lambda value, _: thousands(value))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xticks(sorted(xs))


def _whose(band: Band) -> str:
    return f"Upper panels: {band.title.removeprefix('Ours · ')}."


def _alt(band: Band, *, unit: str, spell: Callable[[float], str]) -> str:
    said = []
    for (column, method), points in band.series.items():
        first, last = points[0], points[-1]
        said.append(
            f"{FAMILIES[method]} on {column}: {first.value:.1f} % at {spell(first.x)} {unit}, "
            f"{last.value:.1f} % at {spell(last.x)}"
        )
    return f"Line charts, {band.title}. " + "; ".join(said) + ". Below, in panels of their own, the paper's numbers."
