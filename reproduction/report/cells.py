"""Grid + runs → filled cells: for each base, method and column every seed's per-unit values, or what is missing."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reproduction.records import CONTROLS, Evaluation, RecordError, Run
from reproduction.report.collect import label, parameter_figures, readable_runs, usable
from reproduction.report.grid import PAPER, UNTUNED, CellKey, Column, Grid, GridError, kind_of
from reproduction.report.intervals import Interval, around, bootstrap, bootstrap_seeds, interval, residuals
from reproduction.report.measures import Measure, measure_of
from reproduction.report.scores import Scores, mean_of, read_scores


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The scores behind one printed value: ``values`` (seeds, n) float, its columns ordered as ``items``.

    The value is their mean. ``weights`` (n,) float of mean 1 stand in values already, w_i v_i: with them a difference
    of two cells is paired item by item like any other, and an interval takes their variation into account. ``strata``
    (n,) are the sources of a mean over several. ``controls`` are the mean scores of known answers to the same items, by
    what they are called, of an evaluation that has such.
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
        """How many runs of different seeds there are; an untuned base is one run, whatever the seeds."""
        return len(set(self.runs))

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1) of the seeds' means; None where there is one run."""
        return float(self.values.mean(axis=1).std(ddof=1)) if self.seeds > 1 else None

    @cached_property
    def interval(self) -> Interval:
        """Over items where there is one seed (or one run behind all of them), over seeds and items otherwise.

        Nothing but zeros or ones, over all seeds: that of one seed's items, since a bootstrap would have no width.
        """
        if self.weights is not None:
            return self.resampled(self.values, over_seeds=self.seeds > 1)
        extreme = self.values.max() == 0.0 or self.values.min() == 1.0
        return interval(self.values[0]) if self.seeds == 1 or extreme else bootstrap_seeds(self.values)

    def resampled(self, values: NDArray[np.float64], *, over_seeds: bool) -> Interval:
        """The interval of the mean of values (seeds, n) that are weighted as this cell's: its own, or differences."""
        drawn, how = (values, bootstrap_seeds) if over_seeds else (values.mean(axis=0), bootstrap)
        if self.weights is None:
            return how(np.round(drawn, 12))
        return around(*residuals(drawn / self.weights, self.weights, self.strata), how)


@dataclass(frozen=True)
class Missing:
    """A cell without a value: why, and the command that fills it."""

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
    """A grid with what its runs say. A key of ``cells`` is (base, method, column id); a cell absent is missing."""

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
        """The distinct values of a figure of `collect.parameter_figures` among one row's runs (one, as a rule)."""
        return sorted({figures[figure] for figures in self.figures.get((base, method), [])})


def gather(
    grid: Grid,
    runs: Path,
    *,
    scale: str,
    expected: Mapping[CellKey, str] | None = None,
    evaluations: Mapping[tuple[str, str], str] | None = None,
    flags: str = "",
) -> Filled:
    """Find each cell's runs and read their scores.

    ``expected`` maps (experiment, method, seed) → the name of the run's folder, which holds the digest of the config
    that is wanted now; a run of a changed config is then never taken for it. Without it a run is found by its config's
    experiment, method and seed (an untuned base by its model's name). ``evaluations`` maps (benchmark, protocol name) →
    the name of the evaluation's folder (benchmark and protocol digest), a benchmark's first default before its others:
    it is what a column shows that names no protocol. Without ``evaluations`` a run may have one that fits a column.
    ``flags`` go into the commands that fill what is missing.

    Raises `GridError` where two runs or two evaluations answer to one cell, or a column would mix protocols or data. A
    cell whose run is absent, not done, not evaluated, or cannot be read is missing, with the command that fills it.
    """
    filled = Filled(grid=grid, scale=scale)
    finder = _Finder(grid, runs, scale=scale, expected=expected, evaluations=evaluations, flags=flags)
    protocols: dict[tuple[str, str | None], tuple[tuple[str, str], str]] = {}
    for base in grid.bases:
        filled.base_labels[base] = grid.bases[base]["label"][kind_of(scale)]
        for method in grid.methods:
            for column in filled.columns:
                found = []
                seeds = grid.seeds_of(base, method, column.benchmark)
                for seed in seeds:
                    answer = finder.read(column, base=base, method=method, seed=seed)
                    if isinstance(answer, Missing):
                        # A cell is named once, with the first thing that it lacks: its command fills all of it.
                        if answer.cell not in [each.cell for each in filled.missing]:
                            filled.missing.append(answer)
                        continue
                    run, evaluations, scores = answer
                    for protocol, evaluation in evaluations.items():
                        _same_protocol(protocols, (column.benchmark, protocol), run=run, evaluation=evaluation)
                    filled.base_labels[base] = label(run.config["model"])
                    figures = finder.figures(run)
                    if figures not in (known := filled.figures.setdefault((base, method), [])):
                        known.append(figures)
                    found.append((run, list(evaluations.values()), scores))
                if found and len(found) == len(seeds):
                    filled.cells[base, method, column.id] = _cell(column, found, base=base, method=method)
    _own_names(filled)
    for base, name in filled.base_labels.items():
        filled.base_labels[base] = ", ".join(filter(None, [name, grid.block(base, scale)]))
    return filled


def evaluation_under(benchmark: str, protocol: str | None, evaluations: Mapping[tuple[str, str], str]) -> str | None:
    """Which of the ``evaluations`` (see `gather`) is meant by a column's protocol, None where there is none for it."""
    fitting = (name for (one, its), name in evaluations.items() if one == benchmark and protocol in (None, its))
    return next(fitting, None)


def of_common_seeds(cell: Cell, other: Cell) -> tuple[Cell, Cell]:
    """The two with the seeds alone that both have: the first ones, see `Grid`."""
    common = min(len(cell.runs), len(other.runs))
    first, second = (replace(each, runs=each.runs[:common], values=each.values[:common]) for each in (cell, other))
    return first, second


def pair(cell: Cell, reference: Cell) -> NDArray[np.float64]:
    """Differences cell - reference (seeds, n), matched by item id (both are in the order of the ids) and by seed: both
    have the same ones, see `of_common_seeds`.

    Raises `GridError` where the two did not see the same items: an id that one lacks, or other content under an id.
    """
    ours, theirs = (dict(zip(side.items, side.hashes, strict=True)) for side in (cell, reference))
    counted = [[] if side.weights is None else side.weights.tolist() for side in (cell, reference)]
    if ours == theirs and counted[0] != counted[1]:
        raise GridError(
            f"{cell.runs[0]} and {reference.runs[0]} weigh the {cell.column.benchmark} items otherwise: their "
            "tokenizers differ, and their losses a token cannot be compared"
        )
    if ours != theirs:
        odd = sorted(item for item in ours.keys() | theirs.keys() if ours.get(item) != theirs.get(item))
        raise GridError(
            f"{cell.runs[0]} and {reference.runs[0]} did not see the same {cell.column.benchmark} items: "
            f"{len(odd)} differ, such as {odd[0]!r}; evaluate both on the same data"
        )
    return cell.values - reference.values


class _Finder:
    def __init__(
        self,
        grid: Grid,
        runs: Path,
        *,
        scale: str,
        expected: Mapping[CellKey, str] | None,
        evaluations: Mapping[tuple[str, str], str] | None,
        flags: str,
    ):
        self.flags = flags
        self.grid, self.scale, self.expected, self.wanted = grid, scale, expected, evaluations
        found, self.damaged = readable_runs(runs, scale=scale)
        self.runs = {run.name: run for run in found}
        self.configs = {run.name: run.config for run in found}
        self._evaluations: dict[str, list[Evaluation]] = {}
        self._scores: dict[Path, dict[str, Scores]] = {}
        self._figures: dict[str, dict[str, Any]] = {}

    def read(
        self, column: Column, *, base: str, method: str, seed: int
    ) -> tuple[Run, dict[str | None, Evaluation], Scores] | Missing:
        """The run, its evaluations under the column's protocols, and what they say of the column together."""
        experiment = self.grid.experiment(column, base)
        try:
            run = self._run(experiment, base=base, method=method, seed=seed)
            with usable(run) if run else contextlib.nullcontext():
                found = self._evaluated(run, column)
                if not isinstance(found, str):
                    self.figures(run)
                    parts = {each.name: self.scores(each, column.metric) for each in found.values()}
                    return run, found, next(iter(parts.values())) if len(parts) == 1 else mean_of(parts)
            reason = found
        except RecordError as error:
            reason = str(error)
        chosen = f"'experiments=[{experiment}]' 'methods=[{method}]'" + (f" 'seeds=[{seed}]'" if seed else "")
        of_cell = (each.flags for each in self.grid.columns if self.grid.experiment(each, base) == experiment)
        words = (f"table={self.grid.table}", f"scale={self.scale}", chosen, *dict.fromkeys(of_cell), self.flags)
        command = f"python scripts/table.py {' '.join(filter(None, words))}"
        return Missing(experiment=experiment, method=method, seed=seed, reason=reason, command=command)

    def _evaluated(self, run: Run | None, column: Column) -> dict[str | None, Evaluation] | str:
        """A run's evaluations under the column's protocols, or what lacks."""
        if run is None:
            reason = "never run"
        elif not run.done:
            status = run.status
            reason = ": ".join(filter(None, [status.get("state", "never started"), status.get("reason")]))
        else:
            asked = column.protocols_at(self.scale)
            evaluations = {protocol: self._evaluation(run, column.benchmark, protocol) for protocol in asked}
            lacking = [protocol for protocol, evaluation in evaluations.items() if evaluation is None]
            if not lacking:
                return evaluations
            reason = f"not evaluated on {column.benchmark}" + (f" under {lacking[0]}" if lacking[0] else "")
        return reason

    def _run(self, experiment: str, *, base: str, method: str, seed: int) -> Run | None:
        if self.expected is not None:
            try:
                name = self.expected[experiment, method, seed]
            except KeyError:
                raise GridError(
                    f"no run was named for the cell {(experiment, method, seed)}: the committed reference lacks a cell "
                    "that is new in the grid, and `make reference` makes it anew"
                ) from None
            if name in self.damaged:
                raise RecordError(self.damaged[name])
            return self.runs.get(name)
        own = self.grid.bases[base]["model"][kind_of(self.scale)]
        names = [
            name
            for name, config in self.configs.items()
            if (
                method == UNTUNED and config["model"]["name"] == own
                if config["method"]["kind"] == "none"
                else (config["experiment"], config["method"]["name"], config["seed"]) == (experiment, method, seed)
            )
        ]
        if len(names) > 1:
            raise GridError(
                f"{len(names)} runs answer to experiment={experiment} method={method} seed={seed}: {', '.join(names)}; "
                "say which is expected, or delete the others"
            )
        return self.runs[names[0]] if names else None

    def _evaluation(self, run: Run, benchmark: str, protocol: str | None) -> Evaluation | None:
        if run.name not in self._evaluations:
            self._evaluations[run.name] = run.evaluations()
        found = [each for each in self._evaluations[run.name] if each.benchmark == benchmark]
        if self.wanted is not None:
            name = evaluation_under(benchmark, protocol, self.wanted)
            found = [each for each in found if each.name == name]
        elif protocol is not None:
            found = [each for each in found if each.protocol.get("name") == protocol]
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise GridError(f"{run.name} has several evaluations on {benchmark}: {names}; say which one counts")
        return found[0] if found else None

    def scores(self, evaluation: Evaluation, asked: str | list[str]) -> Scores:
        if evaluation.folder not in self._scores:
            self._scores[evaluation.folder] = read_scores(evaluation)
        metrics = self._scores[evaluation.folder]
        names = [asked] if isinstance(asked, str) else asked
        metric = next((name for name in names if name in metrics), None)
        if metric is None:
            raise GridError(
                f"{evaluation.folder} gives {', '.join(metrics)}, and the table asks for {' or '.join(names)}"
            )
        return metrics[metric]

    def figures(self, run: Run) -> dict[str, Any]:
        if run.name not in self._figures:
            self._figures[run.name] = parameter_figures(run)
        return self._figures[run.name]


def _same_protocol(
    seen: dict[tuple[str, str | None], tuple[tuple[str, str], str]],
    asked: tuple[str, str | None],
    *,
    run: Run,
    evaluation: Evaluation,
) -> None:
    found = (evaluation.name, str(evaluation.meta.get("data_digest")))
    before, other = seen.setdefault(asked, (found, run.name))
    if before != found:
        raise GridError(
            f"{other} and {run.name} were evaluated on {asked[0]} under other protocols or data "
            f"({before[0]}, data {before[1]}; {found[0]}, data {found[1]}); evaluate both alike"
        )


def _cell(column: Column, found: list[tuple[Run, list[Evaluation], Scores]], *, base: str, method: str) -> Cell:
    _, evaluations, first = found[0]
    weights = None if first.weights is None else np.array(first.relative_weights)
    values = np.array([list(scores.values.values()) for _, _, scores in found])
    for run, _, scores in found:
        if (scores.hashes, scores.samples, scores.weights) != (first.hashes, first.samples, first.weights):
            raise GridError(f"{found[0][0].name} and {run.name} did not see the same {column.benchmark} items")
    return Cell(
        base=base,
        method=method,
        column=column,
        runs=tuple(run.name for run, _, _ in found),
        items=tuple(first.values),
        hashes=tuple(first.hashes[item] for item in first.values),
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


def _own_names(filled: Filled) -> None:
    if kind_of(filled.scale) == PAPER:
        return
    for base, name in filled.base_labels.items():
        if name == filled.grid.bases[base]["label"].get(PAPER):
            raise GridError(f"at scale {filled.scale!r} a model is called {name!r}, the paper's; give it its own name")
