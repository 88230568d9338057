"""Collects the scores of a grid from runs: per-unit values of every seed for each base, method and column."""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reproduction.records import CONTROLS, Evaluation, RecordError, Run
from reproduction.report.collect import label, parameter_figures, readable_runs, usable
from reproduction.report.grid import CellKey, Column, Grid, GridError, kind_of
from reproduction.report.intervals import Interval, around, bootstrap, bootstrap_seeds, interval, relative, residuals
from reproduction.report.measures import Measure, measure_of
from reproduction.report.scores import Scores, mean_of, read_scores


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The scores behind one printed value, which is their mean.

    Args:
        base, method, column: place in the table.
        runs: names, one per seed.
        items, hashes: ids of the n items and hashes of their content.
        values: (seeds, n), already multiplied by the weights, if any, so that differences pair item by item.
        metric, unit, samples: of the evaluation.
        protocol, evaluations: names of the protocols and of the evaluations' folders.
        weights: (n,) with mean 1, None for equal weights.
        strata: (n,) source numbers of a mean over several sources.
        controls: name → mean score of known answers to the same items, if the evaluation has them.
    """

    base: str
    method: str
    column: Column
    runs: tuple[str, ...]
    items: tuple[str, ...]
    hashes: tuple[str, ...]
    values: NDArray[np.float64]
    metric: str
    unit: str
    samples: int
    protocol: str
    evaluations: tuple[str, ...]
    weights: NDArray[np.float64] | None = None
    strata: NDArray[np.int_] | None = None
    controls: Mapping[str, float] = field(default_factory=dict)

    @property
    def measure(self) -> Measure:
        return measure_of(self.metric)

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def seeds(self) -> int:
        """Number of runs with different seeds; an untuned base is always one run."""
        return len(set(self.runs))

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1) of the seeds' means; None for one run."""
        return float(self.values.mean(axis=1).std(ddof=1)) if self.seeds > 1 else None

    @functools.cached_property
    def interval(self) -> Interval:
        """Interval over items for one run, over seeds and items for several.

        If all values of all seeds are 0 (or 1), the interval is that of one seed's items: a bootstrap has no width.
        """
        if self.weights is not None:
            return self.resampled(self.values, over_seeds=self.seeds > 1)
        extreme = self.values.max() == 0.0 or self.values.min() == 1.0
        return interval(self.values[0]) if self.seeds == 1 or extreme else bootstrap_seeds(self.values)

    def resampled(self, values: NDArray[np.float64], *, over_seeds: bool) -> Interval:
        """Bootstrap the mean of values (seeds, n) with this cell's weights; values are its own, or differences."""
        drawn, how = (values, bootstrap_seeds) if over_seeds else (values.mean(axis=0), bootstrap)
        if self.weights is None:
            return how(np.round(drawn, 12))
        return around(*residuals(drawn / self.weights, self.weights, self.strata), how)


@dataclass(frozen=True)
class Missing:
    """A cell without a value: the reason, and the command that fills it."""

    experiment: str
    method: str
    seed: int
    reason: str
    command: str

    @property
    def cell(self) -> CellKey:
        return self.experiment, self.method, self.seed


@dataclass(kw_only=True)
class Filled:
    """A grid with the scores of its runs.

    Args:
        grid, scale: of the table.
        cells: (base, method, column id) → `Cell`, without the missing cells.
        figures: (base, method) → the distinct `parameter_figures` of its runs.
        base_labels: base → the model's label, with the block's.
        missing: each missing cell once, with the first reason.
    """

    grid: Grid
    scale: str
    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)
    figures: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    base_labels: dict[str, str] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)

    @property
    def columns(self) -> list[Column]:
        return self.grid.columns_at(self.scale)

    def parameters(self, base: str, method: str, figure: str) -> list[float]:
        """Return the distinct values of one of the `parameter_figures` among a row's runs (usually one)."""
        return sorted({figures[figure] for figures in self.figures.get((base, method), [])})


def gather(
    grid: Grid,
    runs: Path,
    *,
    scale: str,
    expected: Mapping[CellKey, str],
    evaluations: Mapping[tuple[str, str], str],
    flags: str = "",
) -> Filled:
    """Find each cell's runs and read their scores.

    Args:
        grid: of this scale.
        runs: folder of runs.
        scale: of the runs.
        expected: (experiment, method, seed) → name of the run's folder, which holds the digest of its config.
        evaluations: (benchmark, protocol name) → name of the evaluation's folder, a benchmark's first default before
            its others.
        flags: for the commands that fill missing cells.

    Raises `GridError` if ``expected`` lacks a cell, an evaluation lacks the column's metric, or a column would mix
    data. A cell is missing if its run is absent, not done, not evaluated, or unreadable.
    """
    filled = Filled(grid=grid, scale=scale)
    reader = _Reader(runs, scale=scale, expected=expected, evaluations=evaluations)
    digests: dict[str, tuple[str, str]] = {}
    for base in grid.bases:
        filled.base_labels[base] = grid.bases[base]["label"][kind_of(scale)]
    for base, method, column in itertools.product(grid.bases, grid.methods, filled.columns):
        found, seeds = [], grid.seeds_of(base, method, column.benchmark)
        for seed in seeds:
            key = grid.experiment(column, base), method, seed
            try:
                run, figures, own = reader.read(key, column)
            except RecordError as error:
                if key not in [each.cell for each in filled.missing]:
                    filled.missing.append(Missing(*key, str(error), _command(filled, base, key, flags)))
                continue
            for evaluation, _ in own:
                data = str(evaluation.meta.get("data_digest"))
                before, other = digests.setdefault(evaluation.name, (data, run.name))
                if before != data:
                    raise GridError(
                        f"{other} and {run.name} were evaluated on other data as {evaluation.name} ({before}; {data})"
                    )
            filled.base_labels[base] = label(run.config["model"])
            if figures not in (known := filled.figures.setdefault((base, method), [])):
                known.append(figures)
            found.append((run.name, own))
        if found and len(found) == len(seeds):
            filled.cells[base, method, column.id] = _cell(column, found, base=base, method=method)
    for base, name in filled.base_labels.items():
        filled.base_labels[base] = ", ".join(filter(None, [name, grid.block(base, scale)]))
    return filled


def _command(filled: Filled, base: str, key: CellKey, /, *flags: str) -> str:
    (experiment, method, seed), grid = key, filled.grid
    chosen = f"'experiments=[{experiment}]' 'methods=[{method}]'" + (f" 'seeds=[{seed}]'" if seed else "")
    own = dict.fromkeys(each.flags for each in grid.columns if grid.experiment(each, base) == experiment)
    words = (f"table={grid.table}", f"scale={filled.scale}", chosen, *own, *flags)
    return f"python scripts/table.py {' '.join(filter(None, words))}"


def evaluation_under(benchmark: str, protocol: str | None, evaluations: Mapping[tuple[str, str], str]) -> str | None:
    """Return the one of the ``evaluations`` (see `gather`) for a column's protocol, None if there is none."""
    fitting = (name for (one, its), name in evaluations.items() if one == benchmark and protocol in (None, its))
    return next(fitting, None)


class _Reader:
    """Reads each run of a folder and each evaluation once."""

    def __init__(self, runs: Path, *, scale: str, expected: Mapping, evaluations: Mapping):
        self.scale, self.expected, self.evaluations = scale, expected, evaluations
        found, self.damaged = readable_runs(runs, scale=scale)
        self.runs = {run.name: run for run in found}
        self._evaluations = functools.cache(lambda name: {each.name: each for each in self.runs[name].evaluations()})
        self._figures = functools.cache(lambda name: parameter_figures(self.runs[name]))
        self._scores = functools.cache(lambda folder: read_scores(Evaluation(folder)))

    def read(self, key: CellKey, column: Column) -> tuple[Run, dict[str, Any], list[tuple[Evaluation, Scores]]]:
        """Return a cell's run, its parameter figures, and its evaluations under the column's protocols with scores.

        Raises `RecordError` with the part that the cell lacks.
        """
        if key not in self.expected:
            raise GridError(
                f"no run was named for the cell {key}: the committed reference lacks a cell that is new in the grid, "
                "and `make reference` makes it anew"
            )
        name = self.expected[key]
        if name in self.damaged:
            raise RecordError(self.damaged[name])
        if name not in self.runs:
            raise RecordError("never run")
        run = self.runs[name]
        with usable(run):
            if not run.done:
                state = run.status.get("state", "never started"), run.status.get("reason")
                raise RecordError(": ".join(filter(None, state)))
            own = []
            for protocol in column.protocols_at(self.scale):
                folder = evaluation_under(column.benchmark, protocol, self.evaluations)
                if folder not in self._evaluations(name):
                    under = f" under {protocol}" if protocol else ""
                    raise RecordError(f"not evaluated on {column.benchmark}{under}")
                evaluation = self._evaluations(name)[folder]
                own.append((evaluation, self._metric(evaluation, column.metric)))
            return run, self._figures(name), own

    def _metric(self, evaluation: Evaluation, requested: str | list[str]) -> Scores:
        metrics = self._scores(evaluation.folder)
        names = [requested] if isinstance(requested, str) else requested
        for name in names:
            if name in metrics:
                return metrics[name]
        raise GridError(f"{evaluation.folder} gives {', '.join(metrics)}, and the table asks for {' or '.join(names)}")


def _cell(column: Column, found: list[tuple[str, list[tuple[Evaluation, Scores]]]], *, base: str, method: str) -> Cell:
    of_seeds = [
        own[0][1] if len(own) == 1 else mean_of({evaluation.name: scores for evaluation, scores in own})
        for _, own in found
    ]
    first, evaluations = of_seeds[0], [evaluation for evaluation, _ in found[0][1]]
    for (name, _), scores in zip(found, of_seeds, strict=True):
        if (scores.hashes, scores.samples, scores.weights) != (first.hashes, first.samples, first.weights):
            raise GridError(f"{found[0][0]} and {name} did not see the same {column.benchmark} items")
    weights = None if first.weights is None else relative(list(first.weights.values()))
    values = np.array([list(scores.values.values()) for scores in of_seeds])
    return Cell(
        base=base,
        method=method,
        column=column,
        runs=tuple(run for run, _ in found),
        items=tuple(first.values),
        hashes=tuple(first.hashes.values()),
        values=values if weights is None else values * weights,
        weights=weights,
        strata=None if first.strata is None else np.array(first.strata),
        metric=first.metric,
        unit=first.unit,
        samples=first.samples,
        protocol=" + ".join(evaluation.protocol.get("name", "") for evaluation in evaluations),
        evaluations=tuple(evaluation.name for evaluation in evaluations),
        controls=evaluations[0].meta.get(CONTROLS, {}),
    )


def of_common_seeds(cell: Cell, other: Cell) -> tuple[Cell, Cell]:
    """Restrict two cells to their common seeds, which are the first ones (see `Grid`)."""
    common = min(len(cell.runs), len(other.runs))
    first, second = (replace(each, runs=each.runs[:common], values=each.values[:common]) for each in (cell, other))
    return first, second


def pair(cell: Cell, reference: Cell) -> NDArray[np.float64]:
    """Return the differences cell - reference (seeds, n), matched by item id and by seed, of cells with the same seeds.

    Raises `GridError` if the items differ: an id that only one cell has, or different content under an id.
    """
    ours, theirs = (dict(zip(side.items, side.hashes, strict=True)) for side in (cell, reference))
    if ours != theirs:
        odd = sorted(item for item in ours.keys() | theirs.keys() if ours.get(item) != theirs.get(item))
        raise GridError(
            f"{cell.runs[0]} and {reference.runs[0]} did not see the same {cell.column.benchmark} items: "
            f"{len(odd)} differ, such as {odd[0]!r}; evaluate both on the same data"
        )
    if not np.array_equal(*([] if side.weights is None else side.weights for side in (cell, reference))):
        raise GridError(
            f"{cell.runs[0]} and {reference.runs[0]} weigh the {cell.column.benchmark} items otherwise: their "
            "tokenizers differ, and their losses a token cannot be compared"
        )
    return cell.values - reference.values
