"""Parallel trials of a learning-rate search; the finished trials of a setting determine its next ones."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.tuned_rates import setting
from reproduction.commands.trials import Chosen, Trial, read_rows, run_trial, trials_of, write_rows
from reproduction.commands.tuning import Asked
from reproduction.records.identity import run_digest
from reproduction.running.pool import Ended, run_jobs
from reproduction.running.progress import NullProgress
from reproduction.running.table import on_part_of_a_gpu, workers_per_gpu
from reproduction.training.launching import visible_gpus

FACTOR = 2.0
"""Ratio of the next rate to a setting's best rate if that lies at the edge."""

Owner = tuple[str, str, str]
"""(model, experiment, method) that rows belong to."""


class TrialsFailed(Exception):
    """Trials that ended neither done nor diverged. Finished trials are on disk; the same search resumes from them."""


def search(asked: Asked, *, folder: Path, workers: int, on_trial: Callable[[Trial], None]) -> list[Chosen]:
    """Run the trials that trials.csv and longer.csv lack, ``workers`` at a time, and write chosen.csv.

    Cells with the same training are one trial. The files are rewritten after every trial, so an interrupted search
    resumes. Rows of models, experiments and methods outside the request are kept; rows of requested ones under another
    setting or config are dropped, unless another of the cells has that setting.

    Raises `TrialsFailed`, after all other trials, if a trial ended neither done nor diverged.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers} is no number of processes: give the number of trials to run side by side")
    searched = _Search(asked, folder)
    waiting = searched.waiting()
    gpus = visible_gpus() if waiting else 0
    sharing = workers_per_gpu(workers, waiting=len(waiting), gpus=gpus) if gpus else 0
    jobs: list[Cell] = []
    failed: list[str] = []

    def add(cell: Cell) -> tuple[Cell, str]:
        jobs.append(on_part_of_a_gpu(cell, sharing) if sharing else cell)
        return jobs[-1], _title(cell)

    def ended(end: Ended) -> None:
        if end.error is not None:
            failed.append(f"{_title(jobs[end.job])}: {end.error}")
        else:
            on_trial(searched.take(end.value))

    def more(end: Ended) -> Iterator[tuple[Cell, str]]:
        return map(add, [] if end.error is not None else searched.following(end.value))

    first = list(map(add, waiting))
    run_jobs(
        partial(run_trial, heldout_at=asked.longer_steps),
        [cell for cell, _ in first],
        workers=workers,
        threads=1,
        names=[title for _, title in first],
        progress=NullProgress(),
        ended=ended,
        more=more,
    )
    if failed:
        raise TrialsFailed("\n".join([f"{len(failed)} trials failed, and no rate was chosen:", *failed]))
    return searched.choose()


def _title(cell: Cell) -> str:
    return f"{cell.title} {cell.train.learning_rate:g}"


class _Search:
    """State of a search: trials to run, finished and following. Trials are keyed by their `run_digest`."""

    def __init__(self, asked: Asked, folder: Path):
        self.asked, self.folder = asked, folder
        self.cells = {run_digest(cell.config): cell for cell in reversed(asked.trials)}
        self.settings = {name: setting(cell.config) for name, cell in self.cells.items()}
        self.order = {run_digest(cell.config): place for place, cell in enumerate(asked.trials)}
        self.planned = Counter(self.settings.values())
        self.longer = {run_digest(cell.config): cell for cell in asked.longer.values()}
        owners: dict[str, list[Owner]] = {}
        for cell in asked.trials:
            own = self.settings[run_digest(cell.config)]
            owners.setdefault(own, []).append((cell.model.name, cell.experiment, cell.method.name))
        self.setting_of = {owner: own for own, of_setting in owners.items() for owner in of_setting}
        known = read_rows(folder / "trials.csv", Trial)
        # A setting's rows stay with their earlier owner, unless that one now requests another setting.
        before = {row.setting: _owner(row) for row in known if row.model}
        self.owners = {
            own: before[own] if own in before and self.setting_of.get(before[own], own) == own else of_setting[0]
            for own, of_setting in owners.items()
        }
        for row in known:  # rates beyond the plan's, of an earlier search that found its best at the edge
            first = next((cell for name, cell in self.cells.items() if self.settings[name] == row.setting), None)
            if first is not None and asked.extensions:
                self._want(first, row.learning_rate)
        kept = [self._named(row) for row in known if row.config in self.cells or self._is_not_asked(row)]
        self.done = {row.config: row for row in kept}
        self.done_longer = {row.config: row for row in read_rows(folder / "longer.csv", Trial)}

    def waiting(self) -> list[Cell]:
        """Return the trials known to be needed, longest first."""
        follow = [cell for own in self.owners for cell in self._next(own)]
        longer = [cell for name, cell in self.longer.items() if name not in self.done_longer]
        in_order = sorted(self.cells, key=lambda name: self.order.get(name, len(self.order)))
        rest = [self.cells[name] for name in in_order if name not in self.done]
        return list({run_digest(cell.config): cell for cell in (*longer, *follow, *rest)}.values())

    def take(self, trial: Trial) -> Trial:
        """Record a finished trial and write its file; return it with its setting and owner filled in."""
        if trial.config in self.longer:
            trial = replace(trial, setting=setting(self.longer[trial.config].config))
            self.done_longer[trial.config] = trial
            write_rows(self.folder / "longer.csv", Trial, sorted(self.done_longer.values(), key=_order))
        else:
            trial = self._named(trial)
            self.done[trial.config] = trial
            write_rows(self.folder / "trials.csv", Trial, sorted(self.done.values(), key=_order))
        return trial

    def following(self, trial: Trial) -> list[Cell]:
        """Return the trials that follow from this finished one."""
        return [] if trial.config in self.longer else self._next(self.settings[trial.config])

    def _next(self, own: str) -> list[Cell]:
        """Return a setting's next rate, or its long trial, once its trials are done; nothing before."""
        names = [name for name, other in self.settings.items() if other == own]
        trials = [self.done[name] for name in names if name in self.done]
        if len(trials) < len(names) or all(math.isinf(trial.validation_loss) for trial in trials):
            return []
        (best,) = choose(trials)
        if best.at_edge and len(names) < self.planned[own] + self.asked.extensions:
            lowest = best.learning_rate == min(trial.learning_rate for trial in trials)
            beyond = best.learning_rate / FACTOR if lowest else best.learning_rate * FACTOR
            return [self._want(self.cells[names[0]], float(f"{beyond:.6g}"))]
        if own not in self.asked.longer:
            return []
        (cell,) = trials_of(self.asked.longer[own], [best.learning_rate])
        self.longer[run_digest(cell.config)] = cell
        return [] if run_digest(cell.config) in self.done_longer else [cell]

    def _want(self, like: Cell, rate: float) -> Cell:
        (cell,) = trials_of(like, [rate])
        name = run_digest(cell.config)
        self.cells[name], self.settings[name] = cell, setting(cell.config)
        return cell

    def choose(self) -> list[Chosen]:
        """Write the choices, drop outdated rows, and return the choices of the requested settings."""
        write_rows(self.folder / "trials.csv", Trial, sorted(self.done.values(), key=_order))
        chosen = choose(trial for trial in self.done.values() if trial.setting in self.owners)
        path = self.folder / "longer.csv"
        if self.longer or path.is_file():
            rows = self.done_longer.values()
            kept = [row for row in rows if row.config in self.longer or _owner(row) not in self.setting_of]
            write_rows(path, Trial, sorted(kept, key=_order))
        path = self.folder / "chosen.csv"
        kept = [row for row in read_rows(path, Chosen) if self._is_not_asked(row)]
        write_rows(path, Chosen, sorted([*kept, *chosen], key=_owner))
        return chosen

    def _named(self, trial: Trial) -> Trial:
        own = self.settings.get(trial.config, trial.setting)
        model, experiment, method = self.owners.get(own, _owner(trial))
        return replace(trial, setting=own, model=model, experiment=experiment, method=method)

    def _is_not_asked(self, row: Trial | Chosen) -> bool:
        return row.setting not in self.owners and _owner(row) not in self.setting_of


def choose(trials: Iterable[Trial]) -> list[Chosen]:
    """Return each setting's trial with the lowest validation loss; among equals, the lower rate."""
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=_order):
        groups.setdefault(trial.setting, []).append(trial)
    chosen = []
    for group in groups.values():
        best = min(group, key=lambda trial: (trial.validation_loss, trial.learning_rate))
        if math.isinf(best.validation_loss):
            title = "/".join(_owner(best)[1:])
            raise ValueError(f"every trial of {title} diverged: add lower learning rates to trials.yaml")
        rates = [trial.learning_rate for trial in group]
        chosen.append(
            Chosen(
                setting=best.setting,
                model=best.model,
                experiment=best.experiment,
                method=best.method,
                learning_rate=best.learning_rate,
                validation_loss=best.validation_loss,
                at_edge=best.learning_rate in (min(rates), max(rates)),
            )
        )
    return chosen


def _owner(row: Trial | Chosen) -> Owner:
    return row.model or "", row.experiment, row.method


def _order(trial: Trial) -> tuple[str, str, str, float]:
    return *_owner(trial), trial.learning_rate
