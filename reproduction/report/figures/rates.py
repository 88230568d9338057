"""Loss against learning rate, one curve per method with the paper's rate marked; and the table of the same trials."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from reproduction.palette import MUTED, PAPER, look
from reproduction.report.figures.sources import Absent, Rows, Sources
from reproduction.report.figures.style import Plate
from reproduction.report.grid import UNTUNED, kind_of
from reproduction.report.rates import Curve, Rates, Trial, curves, spelled, starts, write_rates

METHODS, CONTROLS, ABLATION = "table2", "table_controls", "table3"
"""Tables whose methods have a curve: the compared methods, the controls, the ablation."""

SUBJECT = "idlora"
"""Method shown in every panel."""

TALLEST = 0.3
"""Minimum height of the first panel in nats above the lowest loss; higher losses at the paper's rate extend it."""

STACK = 0.045
"""Vertical distance between runs that diverged at one rate, as a share of the panel's height."""

TICKS = 5
"""Maximum number of labelled learning rates on an axis."""


def has_rates(sources: Sources) -> bool:
    """Whether the report can be made: there is a trial at the paper's rate for comparison with the best ones."""
    try:
        rates = find_rates(sources)
    except Absent:
        return False
    return any(curve.at(rates.paper_rate) for curve in rates.curves.values())


def find_rates(sources: Sources) -> Rates:
    """Return the trials of the controls' model, for the methods of the three tables and of sharpness.csv.

    Raises `Absent` if there is none, `GridError` for a broken grid.
    """
    folder, command = sources.experiments / "tuning" / sources.scale, sources.make("tune")
    trials = sources.rows(folder / "trials.csv", command=command)
    longer, sharpness = (_optional(sources, path) for path in (folder / "longer.csv", sources.sharpness))
    kind, grids = kind_of(sources.scale), [sources.grid(table) for table in (METHODS, CONTROLS, ABLATION)]
    model = next(base["model"][kind] for base in grids[1].bases.values())
    experiments = list(dict.fromkeys(
        grid.experiment(column, base)
        for grid in (grids[1], grids[2], grids[0])  # the controls' experiments first
        for column in grid.columns
        for base, words in grid.bases.items()
        if words["model"][kind] == model
    ))  # fmt: skip
    labels: dict[str, str] = {}
    for grid in grids:
        for method in grid.methods:
            labels.setdefault(method, grid.label(method, sources.scale))
    labels.pop(UNTUNED, None)
    all_labels = {row["method"]: row["label"] for row in sharpness} | labels
    found = _of(curves(trials, experiments=experiments), [*labels, *all_labels])
    if not found:
        raise Absent(f"a trial of {' or '.join(experiments)} in {sources.name(folder / 'trials.csv')}", command)
    paper = (row for row in sources.paper("table5") if row["hyperparameter"] == "learning_rate")
    paper_rate = float(next(paper)["value"])
    return Rates(
        paper_rate=paper_rate,
        labels=all_labels,
        curves=found,
        longer=curves(longer, experiments=experiments),
        starts=starts(sharpness, base=model, paper_rate=paper_rate),
        steps=_steps(trials, experiments),
        longer_steps=_steps(longer, experiments),
    )


def write_rate_tables(sources: Sources) -> list[Path]:
    """Write rates.csv and rates.md into the scale's tables; returns their paths. Raises the errors of `find_rates`."""
    return write_rates(find_rates(sources), sources.own / "tables")


def rates_figure(sources: Sources) -> Plate:
    """Draw the panels: the compared methods whole and near their best rates, the longer runs, and the controls.

    Raises the errors of `find_rates`.
    """
    rates = find_rates(sources)
    compared = _of(rates.curves, sources.grid(METHODS).methods)
    controls = {method: curve for method, curve in rates.curves.items() if method not in compared or method == SUBJECT}
    last = "d" if rates.longer else "c"
    steps = f" after {rates.steps} steps" if rates.steps else ""
    names = " and ".join(rates.labels.get(method, method) for method in rates.longer)
    longer = (
        f"(c) {names} after {rates.longer_steps} steps, at the paper's rate and at the best of the shorter runs, with "
        "nothing measured between; "
        if rates.longer
        else ""
    )

    def draw(figure: Figure) -> None:
        upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.05])
        panels = upper.subplots(1, 3 if rates.longer else 2)
        _draw_curves(panels[0], compared, rates)
        _show_whole(panels[0], compared, rates)
        panels[0].set_title("(a) the compared methods", fontweight="normal")
        _draw_curves(panels[1], compared, rates)
        _show_best(panels[1], compared, rates)
        panels[1].set_title("(b) the same, near their best rates", fontweight="normal")
        if rates.longer:
            _draw_longer(panels[2], rates)
            panels[2].set_title(f"(c) after {rates.longer_steps} steps", fontweight="normal")
        panels[0].set_ylabel("validation loss (nats a token)")
        upper.align_xlabels(panels)
        keys = [_key(method, rates.labels.get(method, method)) for method in compared]
        upper.legend(handles=keys, loc="outside lower center", ncols=len(keys))
        if controls:
            other, words = lower.subplots(1, 2, width_ratios=[2.2, 1])
            _draw_curves(other, controls, rates)
            _show_best(other, controls, rates)
            other.set_title(f"({last}) ID-LoRA and its controls", fontweight="normal")
            _list_losses(words, controls, rates)
            other.set_ylabel("validation loss (nats a token)")

    return Plate(
        name="rates",
        title="Loss on rows kept out of the training, against the learning rate",
        caption=(
            f"Validation loss{steps} in nats a token, lower is better; learning rates on a logarithmic axis. One run a "
            "point, one seed, no intervals. A large hollow mark is the best rate; a run that diverged is an × at the "
            "upper edge; the vertical line is the paper's rate. "
            "(a) the methods of Tables 1 and 2 whose rates were searched; (b) the same near their best rates; "
            f"{longer}({last}) ID-LoRA and its controls near their best rates."
        ),
        alt=_alt(rates),
        size=(9.2, 6.2),
        draw=draw,
    )


def _optional(sources: Sources, path: Path) -> Rows:
    try:
        return sources.rows(path, command="")
    except Absent:
        return []


def _steps(trials: Rows, experiments: list[str]) -> str:
    found = {int(row["steps"]) for row in trials if row["experiment"] in experiments and row.get("steps")}
    return " or ".join(f"{steps:,}" for steps in sorted(found))


def _of(curves: Mapping[str, Curve], methods: Iterable[str]) -> dict[str, Curve]:
    return {method: curves[method] for method in methods if method in curves}


def _bests(shown: Mapping[str, Curve]) -> dict[str, Trial]:
    return {method: curve.best for method, curve in shown.items() if curve.best}


def _key(method: str, label: str) -> Line2D:
    return Line2D([], [], color=look(method).colour, marker=look(method).marker, markersize=4, label=label)


def _draw_curves(axes: Axes, shown: Mapping[str, Curve], rates: Rates) -> None:
    """Draw curves. Diverged runs stand at the upper edge; those of one rate are stacked."""
    stacked: Counter[float] = Counter()
    for method, curve in shown.items():
        own, order = look(method), 3 if method == SUBJECT else 2
        width = 2.0 if method == SUBJECT else 1.1
        _plot(axes, method, curve.trials, markersize=3, linewidth=width, zorder=order)
        for rate in (trial.rate for trial in curve.trials if not math.isfinite(trial.loss)):
            axes.plot(
                rate, 0.985 - STACK * stacked[rate], color=own.colour, marker="x", linestyle="", markersize=4.5,
                transform=axes.get_xaxis_transform(), zorder=order,
            )  # fmt: skip
            stacked[rate] += 1
        if curve.best:
            _mark_best(axes, method, curve.best)
    _frame(axes, rates)


def _draw_longer(axes: Axes, rates: Rates) -> None:
    """Draw two joined points per method: at the paper's rate, and at the best rate of the shorter runs."""
    for method, curve in rates.longer.items():
        short = rates.curves[method].best if method in rates.curves else None
        best = short and curve.at(short.rate)
        ends = [trial for trial in (curve.at(rates.paper_rate), best) if trial]
        _plot(axes, method, ends, markersize=4, linestyle=":")
        if best and math.isfinite(best.loss):
            _mark_best(axes, method, best)
    _frame(axes, rates)
    axes.margins(y=0.12)


def _plot(axes: Axes, method: str, trials: Iterable[Trial], **style: object) -> None:
    done = [trial for trial in trials if math.isfinite(trial.loss)]
    own, points = look(method), ([trial.rate for trial in done], [trial.loss for trial in done])
    axes.plot(*points, color=own.colour, marker=own.marker, **style)


def _mark_best(axes: Axes, method: str, trial: Trial) -> None:
    own = look(method)
    axes.plot(
        trial.rate, trial.loss, color=own.colour, marker=own.marker, markersize=7.5, markerfacecolor=PAPER,
        markeredgewidth=1.5, linestyle="", zorder=5 if method == SUBJECT else 4,
    )  # fmt: skip


def _frame(axes: Axes, rates: Rates) -> None:
    axes.set_xscale("log")
    axes.margins(x=0.06)
    axes.axvline(rates.paper_rate, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.set_xlabel("learning rate")
    _set_ticks(axes, rates)


def _set_ticks(axes: Axes, rates: Rates) -> None:
    """Set ticks at doublings of the paper's rate, including that rate, as many as fit."""
    low, high = (math.log2(end / rates.paper_rate) for end in axes.get_xlim())
    doublings = range(math.ceil(low), math.floor(high) + 1)
    step = -(-len(doublings) // TICKS)
    shown = [rates.paper_rate * 2.0**each for each in doublings if each % step == 0]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        lambda rate, _: f"{spelled(rate)}\nthe paper's" if math.isclose(rate, rates.paper_rate) else spelled(rate)
    )


def _show_whole(axes: Axes, shown: Mapping[str, Curve], rates: Rates) -> None:
    """Limit a panel to the losses at the paper's rate and those near the lowest one."""
    lowest = min((trial.loss for trial in _bests(shown).values()), default=0.0)
    at_paper = [trial.loss for curve in shown.values() if (trial := curve.at(rates.paper_rate))]
    highest = max([lowest + TALLEST, *filter(math.isfinite, at_paper)])
    slack = 0.05 * (highest - lowest)
    axes.set_ylim(lowest - slack, highest + slack)


def _show_best(axes: Axes, shown: Mapping[str, Curve], rates: Rates) -> None:
    """Limit a panel to the best trials: from below the lowest of their rates to above the highest."""
    if not (bests := _bests(shown).values()):
        return
    losses, tried = [trial.loss for trial in bests], [trial.rate for trial in bests]
    slack = 0.15 * (max(losses) - min(losses)) + 0.005
    axes.set_ylim(min(losses) - slack, max(losses) + 3 * slack)
    axes.set_xlim(min(tried) / 2.5, max(tried) * 2.5)
    _set_ticks(axes, rates)


def _list_losses(axes: Axes, shown: Mapping[str, Curve], rates: Rates) -> None:
    """List the methods by lowest loss in place of a panel."""
    axes.axis("off")
    axes.legend(
        handles=[
            _key(method, f"{best.loss:.4f}  {rates.labels.get(method, method)}")
            for method, best in sorted(_bests(shown).items(), key=lambda item: item[1].loss)
        ],
        title="loss at the best rate", loc="center left", bbox_to_anchor=(-0.12, 0.5), fontsize=7, title_fontsize=7,
        labelspacing=0.3, handlelength=1.6, alignment="left",
    )  # fmt: skip


def _alt(rates: Rates) -> str:
    parts = []
    for method, best in _bests(rates.curves).items():
        at_paper = rates.curves[method].at(rates.paper_rate)
        paper = f", {at_paper.loss:.4f} at the paper's {spelled(rates.paper_rate)}" if at_paper else ""
        name = rates.labels.get(method, method)
        parts.append(f"{name} has {best.loss:.4f} at its best, {spelled(best.rate)}{paper}")
    return f"Line charts of validation loss against the learning rate. {'; '.join(parts)}."
