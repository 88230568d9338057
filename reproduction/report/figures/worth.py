"""Score against held-out loss, one point per run, one panel per model and benchmark; and the table of the same runs."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduction.palette import LOOKS, MUTED, Look, look
from reproduction.report.collect import readable_runs
from reproduction.report.figures.sources import Absent, Sources
from reproduction.report.figures.style import Plate, wrapped
from reproduction.report.grid import UNTUNED
from reproduction.report.measures import PERCENT
from reproduction.report.reference import read_reference
from reproduction.report.worth import SAME, STEP, Panel, panels_of, points_of, views_of, write_worth

TABLE = "table2"
"""The table that defines the panels, whose columns all tables on several tasks share; the runs come from any table."""

LOSS = "loss"
"""The column of the mean loss over its sources."""

LONGER = "table_longer"
"""The table of runs trained longer than those of the others."""

STAR = "*"
HOLLOW = {"markerfacecolor": "none", "markeredgewidth": 0.9}
ACROSS = 3  # panels side by side
HIGH, HEAD, LINE = 2.6, 0.4, 0.2  # inches of a row of panels, of a model's name, and of a line of the legend
KEYS = 4  # method names per line of the legend


def worth_figure(sources: Sources) -> Plate:
    """Draw the panels. Raises `Absent` if no trained run has both loss and score, `GridError` for a broken grid."""
    panels, scale = find_panels(sources), sources.scale
    parts = _parts(panels)
    rows = [-(-len(own) // ACROSS) for _, own in parts]
    heights = [*(HIGH * deep + HEAD for deep in rows), LINE * (1 + len(_keys(panels)) // KEYS)]
    otherwise = (
        f"The panels under {SAME!r} have the runs of the tables' usual training, on an axis of their own; "
        "below them the runs at another rate, or longer, are added, hollow. "
        if any(panel.mixed for panel in panels)
        else ""
    )

    def draw(figure: Figure) -> None:
        *bands, foot = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
        for band, (name, own) in zip(bands, parts, strict=True):
            band.suptitle(": ".join(filter(None, (own[0].model_label, name))), fontweight="bold", x=0.01, ha="left")
            axes = band.subplots(-(-len(own) // ACROSS), ACROSS, squeeze=False)
            for each in axes.flat[len(own) :]:
                each.set_visible(False)
            for each, panel in zip(axes.flat, own, strict=False):
                losses = [point.loss for panel in own for point in panel.trained]
                _draw_panel(each, panel, lowest=min(losses), highest=max(losses))
                each.set_title(_title(panel, scale), fontweight="normal")
            for each in axes[:, 0]:
                each.set_ylabel("percent correct")
            band.supxlabel("held-out loss (nats a token)", fontsize=8)
        foot.legend(handles=_keys(panels), loc="center", ncols=KEYS, fontsize=7.5)

    return Plate(
        name="worth",
        title="What a difference of losses is worth: scores against held-out loss",
        caption=(
            "One point a trained run (one method, one seed); the star is the untuned base, at the right edge with its "
            "loss beside it where that lies far off. Horizontal: held-out loss, the mean of the sources, in "
            "nats a token, lower is better; vertical: percent correct, bars are 95 % intervals over items. "
            f"ρ is Spearman's rank correlation over the trained runs, and below it stand the points that {STEP:g} nats "
            "more go with (Theil-Sen); in brackets 95 % bootstrap intervals over methods, each with all its runs. "
            + otherwise
            + ("A dashed line is chance. " if any(panel.column.chance for panel in panels) else "")
            + "Each model has panels of its own, since a loss a token of one is not that of another."
        ),
        alt=_alt(parts, scale),
        size=(9.2, sum(heights)),
        draw=draw,
    )


def write_worth_tables(sources: Sources) -> list[Path]:
    """Write worth.csv and worth.md into the scale's tables; returns their paths. Raises like `worth_figure`."""
    return write_worth(find_panels(sources), sources.own / "tables", scale=sources.scale)


def find_panels(sources: Sources) -> list[Panel]:
    """Return the panels of this scale's runs in metrics.csv. Raises the errors of `worth_figure`."""
    path, command, grid = sources.own / "metrics.csv", sources.make(TABLE), sources.grid(TABLE)
    shown = grid.columns_at(sources.scale)
    columns = [each for each in shown if each.measure is PERCENT and not each.beside]
    loss = next(each for each in shown if each.id == LOSS)
    reference = read_reference(sources.results, sources.scale) if sources.reference else None
    if reference:
        made = [own for _, own in sorted(reference.tables.items())]
        experiments = {run: experiment for own in made for (experiment, _, _), run in own.runs.items()}
    else:
        made, (runs, _) = [], readable_runs(sources.own / "runs", scale=sources.scale)
        experiments = {run.name: run.config["experiment"] for run in runs}
    otherwise = {grid.experiment(loss, base) for base, words in grid.bases.items() if "like" in words}
    if sources.has(LONGER):
        otherwise |= set(sources.grid(LONGER).experiments)
    points = points_of(
        sources.rows(path, command=command),
        columns,
        loss,
        scale=sources.scale,
        experiments=experiments,
        otherwise=otherwise,
        evaluations=[own.evaluations for own in made],
    )
    if not (panels := panels_of(points, columns)):
        raise Absent(f"a run with all held-out losses and a score in {sources.name(path)}", command)
    return panels


def _parts(panels: Sequence[Panel]) -> list[tuple[str, list[Panel]]]:
    """Return the views of every model; each has its own axis of losses."""
    models = dict.fromkeys(panel.model for panel in panels)
    return [view for model in models for view in views_of([panel for panel in panels if panel.model == model])]


def _title(panel: Panel, scale: str) -> str:
    found = panel.association
    return (
        f"{wrapped(panel.column.heading_at(scale), 38)}\nρ = {found.rho_text}, "
        f"n = {len(panel.trained)}\n{found.slope_text} points per {STEP:g} nats"
    )


def _draw_panel(axes: Axes, panel: Panel, *, lowest: float, highest: float) -> None:
    """Draw a panel with the loss axis of the trained runs; points outside it stand at the edge."""
    slack = 0.06 * (highest - lowest) or STEP
    edge = highest + 2 * slack
    for method, hollow in dict.fromkeys((point.method, point.otherwise) for point in panel.points):
        own, base = look(method), method == UNTUNED
        points = [point for point in panel.points if (point.method, point.otherwise) == (method, hollow)]
        scores = [point.scores[panel.column.id] for point in points]
        places = [min(max(point.loss, lowest - slack), edge) for point in points]
        bars = [(x, y) for x, (_, low, high) in zip(places, scores, strict=True) for y in (low, high, math.nan)]
        axes.plot(*zip(*bars, strict=True), color=own.colour, linewidth=0.7, alpha=0.3, zorder=1)
        axes.plot(
            places, [value for value, _, _ in scores], color=own.colour, marker=STAR if base else own.marker,
            markersize=8 if base else 3.8, linestyle="", alpha=0.85, zorder=3 if base else 2,
            **(HOLLOW if hollow else {"markeredgewidth": 0.3}),
        )  # fmt: skip
        for point, x, (value, _, _) in zip(points, places, scores, strict=True):
            if x != point.loss:
                axes.annotate(f"{point.loss:.2f} →", (x, value), xytext=(6, 5), textcoords="offset points", ha="right",
                              fontsize=7, color=MUTED)  # fmt: skip
    if panel.column.chance:
        chance = PERCENT.factor * panel.column.chance
        axes.axhline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.set_xlim(lowest - 2 * slack, edge + slack)
    axes.locator_params(nbins=5)


def _keys(panels: Sequence[Panel]) -> list[Line2D]:
    """Return legend entries by look, in the order of the palette; steps of a sweep share the swept method's."""
    named: dict[Look, set[tuple[int, str, str]]] = {}
    for point in (point for panel in panels for point in panel.points):
        named.setdefault(look(point.method), set()).add((len(point.method), point.method, point.method_label))
    keys, order = [], [*LOOKS.values(), *named]
    for own, entries in sorted(named.items(), key=lambda item: order.index(item[0])):
        _, method, label = min(entries)
        steps = " and steps of its sweeps" if len(entries) > 1 else ""
        marker = STAR if method == UNTUNED else own.marker
        keys.append(Line2D([], [], color=own.colour, marker=marker, linestyle="", label=label + steps))
    if any(panel.mixed for panel in panels):
        label = "hollow: at another rate, or longer"
        keys.append(Line2D([], [], color=MUTED, marker="o", linestyle="", label=label, **HOLLOW))
    return keys


def _alt(parts: Sequence[tuple[str, list[Panel]]], scale: str) -> str:
    sentences = "; ".join(
        f"{panel.model_label}, {panel.column.heading_at(scale)}: "
        f"{panel.association.rho_text} over {len(panel.trained)} runs" + (f" of the {SAME}" if name == SAME else "")
        for name, own in parts
        for panel in own
    )
    return f"Scatter plots of scores against held-out loss. Rank correlations: {sentences}."
