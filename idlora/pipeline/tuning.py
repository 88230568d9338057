"""The learning-rate search: the same trials for every method, scored on validation rows that it does not train on.

trials.csv holds every trial that was run, chosen.csv the rate with the lowest validation loss for each setting, which
is what is trained whatever the experiment is called (`idlora.pipeline.rates`); configs read the second through
hparams=tuned. Test items are never looked at.
"""

import csv
import itertools
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from idlora.data.tokenization import IGNORED, TokenizedSet
from idlora.pipeline.cell import Cell
from idlora.pipeline.compose import EXPERIMENTS, compose_cell, group_files
from idlora.pipeline.override import override
from idlora.pipeline.pool import Ended, run_jobs
from idlora.pipeline.progress import Silent
from idlora.pipeline.rates import CHOOSING, setting, trials_plan
from idlora.pipeline.request import chosen_names, chosen_tables
from idlora.pipeline.typed import ConfigError, typed
from idlora.records import write_text
from idlora.records.identity import run_digest
from idlora.report import load_grid
from idlora.report.grid import UNTUNED


class TrialsFailed(Exception):
    """Trials that ended neither done nor diverged; what was done is in trials.csv, and the same search goes on."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One learning rate of one setting, and what came of it.

    ``experiment`` and ``method`` are for people: the first ones that asked for the setting. ``outcome`` is "done", or
    "diverged" (``validation_loss`` is then infinite). ``config`` is the digest of the trial's whole config: a trial of
    another config is not taken for this one. `search` fills in the setting of what `run_trial` returns.
    """

    setting: str = ""
    experiment: str
    method: str
    learning_rate: float
    validation_loss: float
    outcome: str
    config: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A setting's rate with the lowest validation loss, and whether it lies at the edge of the grid."""

    setting: str
    experiment: str
    method: str
    learning_rate: float
    validation_loss: float
    at_edge: bool


def trials_of(cell: Cell, rates: Iterable[float]) -> list[Cell]:
    """The cell once for each learning rate, everything else alike."""
    return [replace(cell, train=replace(cell.train, learning_rate=float(rate))) for rate in rates]


def asked_trials(values: Mapping[str, Any]) -> list[Cell]:
    """The trials that the resolved configs/tune.yaml asks for, each a cell of its experiment and method.

    Raises `ConfigError` for a table, experiment or method that there is not, and as `compose_cell` does.
    """
    plan = trials_plan()
    rates = plan["learning_rates"]
    overrides = [
        *(override(key, values[key]) for key in ("data_root", "results_dir") if values[key] is not None),
        override("train.learning_rate", rates[0]),
        override(f"data.{CHOOSING}", plan[CHOOSING]),
        "threads=1",
    ]
    return [
        trial
        for experiment, method in asked_pairs(values)
        for trial in trials_of(
            compose_cell(experiment, method, scale=values["scale"], seed=plan["seed"], overrides=overrides), rates
        )
    ]


def asked_pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(experiment, method), as configs/tune.yaml's ``table``, ``experiments`` and ``methods`` say.

    Named experiments and named methods are paired each with each. Where only the ones or the others are named, or
    none, they have what the tables pair them with; one that no table has, but a file of configs/ or --config-dir, has
    all that the tables have. Raises `ConfigError` for a name that is in neither.
    """
    grids = [load_grid(EXPERIMENTS / table) for table in chosen_tables(values["table"])]
    pairs = dict.fromkeys((e, m) for grid in grids for e, m, _ in grid.cells() if m != UNTUNED)
    known = {"experiments": dict.fromkeys(e for e, _ in pairs), "methods": dict.fromkeys(m for _, m in pairs)}
    named = {
        key: [*names, *(file.stem for file in group_files(key.removesuffix("s")) if file.stem != UNTUNED)]
        for key, names in known.items()
    }
    experiments, methods = (
        list(names) if values[key] is None else chosen_names(values[key], named[key], what=key)
        for key, names in known.items()
    )
    each_with_each = values["experiments"] is not None and values["methods"] is not None
    return [
        (experiment, method)
        for experiment, method in itertools.product(experiments, methods)
        if each_with_each
        or (experiment, method) in pairs
        or experiment not in known["experiments"]
        or method not in known["methods"]
    ]


Row = TypeVar("Row", Trial, Chosen)
Pair = tuple[str, str]


def search(cells: Iterable[Cell], *, folder: Path, workers: int, told: Callable[[Trial], None]) -> list[Chosen]:
    """Run the trials that trials.csv does not have, ``workers`` at a time, and write chosen.csv.

    Each cell is one trial: a learning rate in ``cell.train`` and validation rows in ``cell.data``, at the trials'
    seed. Cells that train the same thing are one trial. trials.csv is rewritten after every trial, so an interrupted
    search goes on where it stopped. Trials and choices of settings, and of experiments and methods, that are not among
    the cells are kept as they are; those of the same experiment and method under another setting or config are dropped,
    unless another of the cells has that setting.

    Raises `ConfigError` where ``workers`` is no number of processes; `TrialsFailed`, after all others were run, where
    a trial ended otherwise than done or diverged.
    Leaves out: any choice but the learning rate, and repeats over seeds.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers} try nothing: give the number of trials to run side by side")
    wanted: dict[str, Cell] = {}
    settings: dict[str, str] = {}
    asking: dict[str, list[Pair]] = {}
    for cell in cells:
        digest = run_digest(cell.config)
        wanted.setdefault(digest, cell)
        settings[digest] = setting(cell.config)
        asking.setdefault(settings[digest], []).append((cell.experiment, cell.method.name))
    searched = set(itertools.chain(*asking.values()))
    path = folder / "trials.csv"
    known = _read(path, Trial)
    names = _names(asking, known)

    def named(trial: Trial) -> Trial:
        found = settings.get(trial.config, trial.setting)
        experiment, method = names.get(found, _pair(trial))
        return replace(trial, setting=found, experiment=experiment, method=method)

    def others(row: Trial | Chosen) -> bool:
        return row.setting not in asking and _pair(row) not in searched

    done = {trial.config: named(trial) for trial in known if trial.config in wanted or others(trial)}
    waiting = [cell for digest, cell in wanted.items() if digest not in done]
    titles = [f"{cell.title} {cell.train.learning_rate:g}" for cell in waiting]
    failed: list[str] = []

    def ended(end: Ended) -> None:
        if end.error is not None:
            failed.append(f"{titles[end.job]}: {end.error}")
            return
        trial = named(end.value)
        done[trial.config] = trial
        _write(path, Trial, sorted(done.values(), key=_order))
        told(trial)

    run_jobs(run_trial, waiting, workers=workers, threads=1, names=titles, progress=Silent(), ended=ended)
    if failed:
        raise TrialsFailed("\n".join([f"{len(failed)} trials failed, and no rate was chosen:", *failed]))
    _write(path, Trial, sorted(done.values(), key=_order))
    chosen = choose(trial for trial in done.values() if trial.setting in asking)
    path = folder / "chosen.csv"
    _write(path, Chosen, sorted([*filter(others, _read(path, Chosen)), *chosen], key=_pair))
    return chosen


def _names(asking: Mapping[str, list[Pair]], known: Iterable[Trial]) -> dict[str, Pair]:
    """Setting → the experiment and method that its rows are written under: as before, unless those ask for another."""
    before = {trial.setting: _pair(trial) for trial in known}
    elsewhere = {pair: each for each, pairs in asking.items() for pair in pairs}
    return {
        each: before[each] if each in before and elsewhere.get(before[each], each) == each else pairs[0]
        for each, pairs in asking.items()
    }


def choose(trials: Iterable[Trial]) -> list[Chosen]:
    """For each setting the trial with the lowest validation loss; of equals, the lower rate."""
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=_order):
        groups.setdefault(trial.setting, []).append(trial)
    chosen = []
    for group in groups.values():
        if all(math.isinf(trial.validation_loss) for trial in group):
            title = "/".join(_pair(group[0]))
            raise ValueError(f"every trial of {title} diverged: add lower learning rates to trials.yaml")
        best = min(group, key=lambda trial: (trial.validation_loss, trial.learning_rate))
        rates = [trial.learning_rate for trial in group]
        chosen.append(
            Chosen(
                setting=best.setting,
                experiment=best.experiment,
                method=best.method,
                learning_rate=best.learning_rate,
                validation_loss=best.validation_loss,
                at_edge=best.learning_rate in (min(rates), max(rates)),
            )
        )
    return chosen


def run_trial(cell: Cell, progress: Silent) -> Trial:
    """Train the cell in a folder that is thrown away, and score it on its validation rows."""
    import torch

    from idlora.evals.capacity import CPU_ROWS
    from idlora.pipeline.preflight import fitted_now
    from idlora.training import NonFiniteLoss, build_adapted, build_base, build_data, launching, packing_of, train

    torch.set_num_threads(cell.threads)
    launching.cap_memory(cell.launch.memory_gb)
    model, tokenizer = build_base(cell.model)
    training, apart = build_data(cell.data, tokenizer, root=cell.data_root, revisions=cell.revisions)
    adapted = build_adapted(model, cell.method, cell.train.seed)
    loss, outcome = math.inf, "done"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            fits = fitted_now(cell, packing=packing_of(adapted, training, cell.train))
            train(
                model=adapted,
                tokenizer=tokenizer,
                tokenized=training,
                spec=fits.train,
                base=cell.model,
                folder=Path(scratch),
                on_step=lambda step, total, loss: progress.step("trial", step, total),
            )
            loss = mean_row_loss(adapted, apart, batch_size=cell.batch_size or CPU_ROWS)
        except NonFiniteLoss:  # a rate too high is a finding, not a failure of the search
            outcome = "diverged"
    return Trial(
        experiment=cell.experiment,
        method=cell.method.name,
        learning_rate=cell.train.learning_rate,
        validation_loss=loss if math.isfinite(loss) else math.inf,
        outcome=outcome,
        config=run_digest(cell.config),
    )


def mean_row_loss(model: Any, rows: TokenizedSet, *, batch_size: int) -> float:
    """Mean over the rows of the row's mean loss over its response tokens, in nats.

    Each row counts once, so that in a mixture of tasks an answer of one letter weighs as much as one of many lines.
    """
    from idlora.evals.loss import response_nats  # torch

    prompts = [row["labels"].count(IGNORED) for row in rows.rows]
    pairs = [(row["input_ids"][:at], row["input_ids"][at:]) for row, at in zip(rows.rows, prompts, strict=True)]
    nats = response_nats(model, pairs, batch_size=batch_size)
    return statistics.fmean(each / len(response) for each, (_, response) in zip(nats, pairs, strict=True))


def _pair(row: Trial | Chosen) -> Pair:
    return row.experiment, row.method


def _order(trial: Trial) -> tuple[str, str, float]:
    return *_pair(trial), trial.learning_rate


def _read(path: Path, kind: type[Row]) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [typed(kind, row, where=str(path)) for row in csv.DictReader(file)]


def _write(path: Path, kind: type, rows: Iterable[object]) -> None:
    lines = [",".join(field.name for field in fields(kind))]
    lines += [",".join(map(_spell, asdict(row).values())) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def _spell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
