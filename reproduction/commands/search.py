"""The trials of a search, run side by side: what a setting has had so far says what it gets next."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.tuned_rates import setting
from reproduction.commands.trials import Asking, Chosen, Trial, read_rows, run_trial, trials_of, write_rows
from reproduction.commands.tuning import Asked
from reproduction.records.identity import run_digest
from reproduction.running.pool import Ended, run_jobs
from reproduction.running.progress import NullProgress
from reproduction.running.table import on_part_of_a_gpu, sharers
from reproduction.training.launching import visible_gpus

FACTOR = 2.0
"""Between a setting's best rate at the edge of its rates, and the one that is tried next."""


class TrialsFailed(Exception):
    """Trials that ended neither done nor diverged; what was done is on disk, and the same search goes on."""


def search(asked: Asked, *, folder: Path, workers: int, told: Callable[[Trial], None]) -> list[Chosen]:
    """Run the trials that trials.csv and longer.csv lack, ``workers`` at a time, and write chosen.csv.

    Cells that train the same thing are one trial. A file is rewritten after every trial, so an interrupted search goes
    on where it stopped. Trials and choices of settings, and of models, experiments and methods, that are not asked for
    are kept as they are; those of the same model, experiment and method under another setting or config are dropped,
    unless another of the cells has that setting.

    Raises `ConfigError` where ``workers`` is no number of processes; `TrialsFailed`, after all others were run, where
    a trial ended otherwise than done or diverged.
    Leaves out: any choice but the learning rate, and repeats over seeds.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers} is no number of processes: give the number of trials to run side by side")
    searched = _Search(asked, folder)
    waiting = list(searched.waiting())
    sharing = sharers(workers, waiting=len(waiting), gpus=visible_gpus()) if waiting and visible_gpus() else 0
    jobs = [on_part_of_a_gpu(cell, sharing) if sharing else cell for cell in waiting]
    failed: list[str] = []

    def title(cell: Cell) -> str:
        return f"{cell.title} {cell.train.learning_rate:g}"

    def ended(end: Ended) -> None:
        if end.error is not None:
            failed.append(f"{title(jobs[end.job])}: {end.error}")
        else:
            told(searched.take(end.value))

    def more(end: Ended) -> Iterator[tuple[Cell, str]]:
        for cell in [] if end.error is not None else searched.following(end.value):
            jobs.append(on_part_of_a_gpu(cell, sharing) if sharing else cell)
            yield jobs[-1], title(jobs[-1])

    run_jobs(
        partial(run_trial, heldout_at=asked.longer_steps),
        list(jobs),
        workers=workers,
        threads=1,
        names=list(map(title, jobs)),
        progress=NullProgress(),
        ended=ended,
        more=more,
    )
    if failed:
        raise TrialsFailed("\n".join([f"{len(failed)} trials failed, and no rate was chosen:", *failed]))
    return searched.choose()


class _Search:
    """What a search is to run, has run, and runs next."""

    def __init__(self, asked: Asked, folder: Path):
        self.asked, self.folder = asked, folder
        self.wanted = {run_digest(cell.config): cell for cell in reversed(asked.trials)}
        self.settings = {name: setting(cell.config) for name, cell in self.wanted.items()}
        self.planned = Counter(self.settings.values())
        self.asking: dict[str, list[Asking]] = {}
        for cell in asked.trials:
            own = self.settings[run_digest(cell.config)]
            self.asking.setdefault(own, []).append((cell.model.name, cell.experiment, cell.method.name))
        self.longer = {run_digest(cell.config): cell for cell in asked.longer.values()}
        self.searched = set(itertools.chain(*self.asking.values()))
        known = read_rows(folder / "trials.csv", Trial)
        self.names = _names(self.asking, known)
        for trial in known:  # rates beyond the plan's, of an earlier search that found its best at the edge
            first = next((cell for name, cell in self.wanted.items() if self.settings[name] == trial.setting), None)
            if first is not None and asked.extensions:
                self._want(*trials_of(first, [trial.learning_rate]))
        kept = [self._named(each) for each in known if each.config in self.wanted or self._of_others(each)]
        self.done = {each.config: each for each in kept}
        self.done_longer = {each.config: each for each in read_rows(folder / "longer.csv", Trial)}

    def waiting(self) -> Iterator[Cell]:
        """What is known to be needed, the longest first."""
        follow = [cell for own in self.asking for cell in self._following(own)]
        first = [cell for name, cell in self.longer.items() if name not in self.done_longer]
        rest = [cell for name, cell in self._in_order() if name not in self.done]
        return iter(list({run_digest(cell.config): cell for cell in (*first, *follow, *rest)}.values()))

    def _in_order(self) -> list[tuple[str, Cell]]:
        order = {run_digest(cell.config): place for place, cell in enumerate(self.asked.trials)}
        return sorted(self.wanted.items(), key=lambda each: order.get(each[0], len(order)))

    def take(self, trial: Trial) -> Trial:
        """Keep a trial that ended, on disk too; returns it under its setting and the name of its rows."""
        if trial.config in self.longer:
            trial = replace(trial, setting=setting(self.longer[trial.config].config))
            self.done_longer[trial.config] = trial
            write_rows(self.folder / "longer.csv", Trial, sorted(self.done_longer.values(), key=_order))
        else:
            trial = self._named(trial)
            self.done[trial.config] = trial
            self._write()
        return trial

    def following(self, trial: Trial) -> list[Cell]:
        """What is to be run now that this trial ended."""
        return [] if trial.config in self.longer else self._following(self.settings[trial.config])

    def _following(self, own: str) -> list[Cell]:
        """Once all trials of a setting are done: the next rate where the best lies at the edge, else the long ones."""
        cells = {name: cell for name, cell in self.wanted.items() if self.settings[name] == own}
        if not cells.keys() <= self.done.keys() or self._all_diverged(cells):
            return []
        first = next(iter(cells.values()))
        (best,) = choose(self.done[name] for name in cells)
        if best.at_edge and len(cells) < self.planned[own] + self.asked.extensions:
            lowest = best.learning_rate == min(self.done[name].learning_rate for name in cells)
            beyond = best.learning_rate / FACTOR if lowest else best.learning_rate * FACTOR
            return self._want(*trials_of(first, [float(f"{beyond:.6g}")]))
        if own not in self.asked.longer:
            return []
        (cell,) = trials_of(self.asked.longer[own], [best.learning_rate])
        name = run_digest(cell.config)
        self.longer[name] = cell
        return [] if name in self.done_longer else [cell]

    def _want(self, cell: Cell) -> list[Cell]:
        name = run_digest(cell.config)
        self.wanted[name], self.settings[name] = cell, setting(cell.config)
        return [cell]

    def _all_diverged(self, names: Iterable[str]) -> bool:
        return all(math.isinf(self.done[name].validation_loss) for name in names)

    def choose(self) -> list[Chosen]:
        """Write the choices, and drop what no longer counts; returns those of the settings asked for."""
        self._write()
        chosen = choose(trial for trial in self.done.values() if trial.setting in self.asking)
        path = self.folder / "longer.csv"
        if self.longer or path.is_file():
            rows = self.done_longer.values()
            kept = [each for each in rows if each.config in self.longer or each.whose not in self.searched]
            write_rows(path, Trial, sorted(kept, key=_order))
        path = self.folder / "chosen.csv"
        kept = [each for each in read_rows(path, Chosen) if self._of_others(each)]
        write_rows(path, Chosen, sorted([*kept, *chosen], key=lambda each: each.whose))
        return chosen

    def _write(self) -> None:
        write_rows(self.folder / "trials.csv", Trial, sorted(self.done.values(), key=_order))

    def _named(self, trial: Trial) -> Trial:
        found = self.settings.get(trial.config, trial.setting)
        model, experiment, method = self.names.get(found, trial.whose)
        return replace(trial, setting=found, model=model, experiment=experiment, method=method)

    def _of_others(self, row: Trial | Chosen) -> bool:
        return row.setting not in self.asking and row.whose not in self.searched


def _names(asking: Mapping[str, list[Asking]], known: Iterable[Trial]) -> dict[str, Asking]:
    """Setting → whose its rows are said to be: as before, unless those ask for another."""
    before = {trial.setting: trial.whose for trial in known if trial.model}
    elsewhere = {whose: each for each, own in asking.items() for whose in own}
    return {
        each: before[each] if each in before and elsewhere.get(before[each], each) == each else own[0]
        for each, own in asking.items()
    }


def choose(trials: Iterable[Trial]) -> list[Chosen]:
    """For each setting the trial with the lowest validation loss; of equals, the lower rate."""
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=_order):
        groups.setdefault(trial.setting, []).append(trial)
    chosen = []
    for group in groups.values():
        if all(math.isinf(trial.validation_loss) for trial in group):
            title = "/".join(group[0].whose[1:])
            raise ValueError(f"every trial of {title} diverged: add lower learning rates to trials.yaml")
        best = min(group, key=lambda trial: (trial.validation_loss, trial.learning_rate))
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


def _order(trial: Trial) -> tuple[str, str, str, float]:
    return *trial.whose, trial.learning_rate
