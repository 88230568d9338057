"""Value of a difference of losses: each run's held-out loss beside its scores, and the association between the two.

Losses of different models are never compared: their tokens differ, and so do their losses before training.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from reproduction.records import write_text
from reproduction.report.cells import evaluation_under
from reproduction.report.documents import document, pipes, write_csv
from reproduction.report.grid import UNTUNED, Column
from reproduction.report.intervals import CONFIDENCE, SEED, Interval

STEP = 0.01
"""Difference of losses in nats per token for which the gain in score is reported."""

RESAMPLES = 1_000

FEWEST = 5
"""Minimum number of methods for an interval; fewer give only a handful of different resamples."""

SAME, ALL = "same training", "all runs"
"""The two sets of runs that are reported separately if the training of some differs."""

NAMES = ("model", "model_label", "method", "method_label", "seed", "experiment", "run", "loss")
"""First columns of worth.csv; each score and the ends of its interval follow."""

Row = Mapping[str, str]
Score = tuple[float, float, float]
"""Value and interval, in percent."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run: its mean held-out loss in nats per token, and scores by column id.

    ``seed`` is empty for an untuned base, ``experiment`` if it is unknown. ``otherwise`` is True for a run trained
    longer, or at another rate than the tables' usual one for its method.
    """

    run: str
    model: str
    model_label: str
    method: str
    method_label: str
    seed: str
    experiment: str
    loss: float
    scores: Mapping[str, Score]
    otherwise: bool = False


@dataclass(frozen=True)
class Association:
    """Association of score and loss: Spearman's rho, None if all losses or all scores are equal, and the Theil-Sen
    slope in points per `STEP` nats more, None if all losses are equal.

    An interval is None for fewer than `FEWEST` methods.
    """

    rho: float | None
    rho_interval: Interval | None
    slope: float | None
    slope_interval: Interval | None

    @property
    def rho_text(self) -> str:
        return _text(self.rho, self.rho_interval)

    @property
    def slope_text(self) -> str:
        return _text(self.slope, self.slope_interval)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One model and one column, and the runs with both the loss and the score, at least one of them trained."""

    column: Column
    points: tuple[Point, ...]

    @property
    def trained(self) -> list[Point]:
        return [point for point in self.points if point.method != UNTUNED]

    @property
    def model(self) -> str:
        return self.points[0].model

    @property
    def model_label(self) -> str:
        return self.points[0].model_label

    @property
    def mixed(self) -> bool:
        """Whether the training of some runs differs from the rest."""
        return any(point.otherwise for point in self.points)

    @property
    def scores(self) -> tuple[float, ...]:
        """Scores of the trained runs."""
        return tuple(point.scores[self.column.id][0] for point in self.trained)

    @cached_property
    def association(self) -> Association:
        """Association over the trained runs."""
        losses, methods = zip(*((point.loss, point.method) for point in self.trained), strict=True)
        return associated(losses, self.scores, methods)


def points_of(
    rows: Iterable[Row],
    columns: Sequence[Column],
    loss: Column,
    *,
    scale: str,
    experiments: Mapping[str, str],
    evaluations: Sequence[Mapping[tuple[str, str], str]],
    otherwise: Set[str] = frozenset(),
) -> list[Point]:
    """Return the runs of metrics.csv that have every source of the column ``loss``, with the scores of ``columns``,
    each of one protocol.

    ``experiments`` maps a run to its experiment; ``otherwise`` holds the experiments at another rate, or longer.
    ``evaluations`` are those of the tables (see `cells.gather`); the first that knows a column's protocol selects the
    evaluation. For an unknown protocol it is the evaluation of the most runs.
    """
    rows = [row for row in rows if row["benchmark"]]
    by_run: dict[str, dict[tuple[str, str], Row]] = {}
    for row in rows:
        by_run.setdefault(row["run"], {})[row["protocol"], row["metric"]] = row

    def shown(column: Column) -> list[str | None]:
        """Return the folders of a column's evaluations."""
        benchmark, protocols = column.benchmark, column.protocols_at(scale)
        return [_evaluation(benchmark, protocol, rows=rows, evaluations=evaluations) for protocol in protocols]

    sources, evaluation_of = shown(loss), {column.id: shown(column)[0] for column in columns}
    points = []
    for run, own in by_run.items():
        losses = [_score(own, evaluation, loss) for evaluation in sources]
        if not all(losses):
            continue
        first = next(iter(own.values()))
        scores = {column.id: _score(own, evaluation_of[column.id], column) for column in columns}
        experiment = experiments.get(run, "") if first["method"] != UNTUNED else ""
        point = Point(
            run=run,
            experiment=experiment,
            otherwise=experiment in otherwise,
            loss=sum(value for value, _, _ in losses) / len(losses),
            scores={column: score for column, score in scores.items() if score},
            **{name: first[name] for name in NAMES[:5]},
        )
        points.append(point)
    return points


def panels_of(points: Iterable[Point], columns: Sequence[Column]) -> list[Panel]:
    """Return a panel for each model and column that has a trained run, models by name, columns in their order."""
    by_model: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.model):
        by_model.setdefault(point.model, []).append(point)
    panels = [
        Panel(column=column, points=tuple(point for point in own if column.id in point.scores))
        for own in by_model.values()
        for column in columns
    ]
    return [panel for panel in panels if panel.trained]


@lru_cache(maxsize=256)  # the figure, the tables and the page use the same runs
def associated(losses: tuple[float, ...], scores: tuple[float, ...], methods: tuple[str, ...]) -> Association:
    """Return the association of losses and scores (percent) of n runs, with percentile bootstrap intervals.

    The bootstrap resamples methods, each with all its runs: seeds of one method lie close together, and resampling
    single runs would give too narrow intervals. A resample without a value, for example of equal losses, is left out.
    """
    x, y = np.array(losses), np.array(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (y[:, None] - y) / (x[:, None] - x) * STEP
    slopes[~np.isfinite(slopes)] = np.nan  # pairs of equal losses, and of a run with itself
    groups = [np.flatnonzero(np.array(methods) == method) for method in dict.fromkeys(methods)]
    rhos, inclines = [], []
    if len(groups) >= FEWEST:
        for drawn in np.random.default_rng(SEED).integers(len(groups), size=(RESAMPLES, len(groups))):
            chosen = np.concatenate([groups[each] for each in drawn])
            rhos.append(_spearman(x[chosen], y[chosen]))
            inclines.append(_median(slopes[np.ix_(chosen, chosen)]))
    rho, slope = _spearman(x, y), _median(slopes)
    return Association(
        rho=None if math.isnan(rho) else rho,
        rho_interval=None if math.isnan(rho) else _interval(rhos),
        slope=None if math.isnan(slope) else slope,
        slope_interval=None if math.isnan(slope) else _interval(inclines),
    )


def views_of(panels: Sequence[Panel]) -> list[tuple[str, list[Panel]]]:
    """Return the views of panels by name: the runs of the same training, then all runs.

    If all runs are trained alike there is one view, and its name is empty.
    """
    if not any(panel.mixed for panel in panels):
        return [("", list(panels))]
    alike = [replace(each, points=tuple(point for point in each.points if not point.otherwise)) for each in panels]
    alike = [panel for panel in alike if panel.trained]
    return [(SAME, alike), (ALL, list(panels))] if alike else [(ALL, list(panels))]


def write_worth(panels: Sequence[Panel], folder: Path, *, scale: str) -> list[Path]:
    """Write worth.csv, a row for each run, and worth.md, a row for each panel, into a folder; returns their paths."""
    columns, rows = dict.fromkeys(panel.column.id for panel in panels), {}
    for point in (point for panel in panels for point in panel.points):
        row = {name: getattr(point, name) for name in NAMES} | {"loss": round(point.loss, 6)}
        for column in columns:  # an untuned base may have scores that no panel shows
            parts = (column, f"{column}_ci_low", f"{column}_ci_high")
            row |= dict(zip(parts, point.scores.get(column, ("", "", "")), strict=True))
        rows[point.run] = row
    heads = [*NAMES, *(f"{column}{part}" for column in columns for part in ("", "_ci_low", "_ci_high"))]
    write_csv(folder / "worth.csv", heads, rows.values())
    write_text(folder / "worth.md", markdown(panels, scale=scale))
    return [folder / "worth.csv", folder / "worth.md"]


def markdown(panels: Sequence[Panel], *, scale: str) -> str:
    """Return worth.md: the table, with an explanation of its columns."""
    mixed = any(panel.mixed for panel in panels)
    rows = []
    for each in panels:
        for name, (panel,) in views_of([each]):
            losses, scores = [point.loss for point in panel.trained], panel.scores
            found, methods = panel.association, {point.method for point in panel.trained}
            rows.append([
                panel.model_label, panel.column.heading_at(scale), *[name or SAME] * mixed, str(len(losses)),
                str(len(methods)), found.rho_text, found.slope_text,
                f"{min(losses):.4f} to {max(losses):.4f}", f"{min(scores):.1f} to {max(scores):.1f}",
            ])  # fmt: skip
    headings = [
        "Model", "Benchmark", *(["runs", "n"] if mixed else ["runs"]), "methods", "rank correlation with the loss",
        f"points per {STEP:g} nats more", "losses", "scores (%)",
    ]  # fmt: skip
    notes = [
        "- Rank correlation: Spearman's, over the runs; the slope is Theil-Sen's, the median over pairs of runs. The "
        "untuned base is in neither.",
        f"- In brackets 95 % bootstrap intervals over methods, each with all its runs; none below {FEWEST} methods. "
        "They say how these methods' runs lie, and not that the one brings about the other.",
        "- —: all losses or all scores are the same.",
        f"- {SAME.capitalize()}: without the runs at another learning rate, or longer. Those bring losses far from the "
        f"rest, and a correlation over {ALL} may be theirs alone.",
    ]
    return document(
        "What a difference of losses is worth",
        "Held-out loss (mean of the sources, nats a token, lower is better) and scores in percent over all trained "
        f"runs, one row a model{', benchmark and set of runs' if mixed else ' and benchmark'}. Where a lower loss goes "
        "with a higher score both numbers are negative.",
        pipes(headings, rows, left=3 if mixed else 2),
        "\n".join(notes if mixed else notes[:-1]),
    )


def _text(value: float | None, interval: Interval | None) -> str:
    """Format a number with its interval: -0.83 [-0.92, -0.65]."""
    if value is None:
        return "—"
    ends = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
    return f"{value:+.2f}{ends}"


def _evaluation(
    benchmark: str, protocol: str | None, *, rows: Iterable[Row], evaluations: Iterable[Mapping[tuple[str, str], str]]
) -> str | None:
    """Return the name of the evaluation's folder, None if no run has one."""
    for known in evaluations:
        if name := evaluation_under(benchmark, protocol, known):
            return name
    own = [row for row in rows if row["benchmark"] == benchmark and protocol in (None, row["protocol_name"])]
    counts = Counter(name for _, name in {(row["run"], row["protocol"]) for row in own})
    return min(counts, key=lambda name: (-counts[name], name), default=None)


def _score(own: Mapping[tuple[str, str], Row], evaluation: str | None, column: Column) -> Score | None:
    """Return value and interval of a run under the first metric of the column that the evaluation has."""
    names = [column.metric] if isinstance(column.metric, str) else column.metric
    row = next((own[evaluation, name] for name in names if (evaluation, name) in own), None)
    return row and (float(row["value"]), float(row["ci_low"]), float(row["ci_high"]))


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Spearman's rho, NaN if all of x or all of y are equal."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1])


def _median(slopes: NDArray[np.float64]) -> float:
    known = slopes[~np.isnan(slopes)]
    return float(np.median(known)) if len(known) else math.nan


def _interval(values: Sequence[float]) -> Interval | None:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
