"""The learning-rate search: the same trials for every method, scored on rows held out of the training set.

trials.csv holds every trial that was run, chosen.csv the rate with the lowest held-out loss for each experiment and
method; configs read the second through hparams=tuned. Test items are never looked at.
"""

import csv
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from idlora.data.tokenization import IGNORED, TokenizedSet
from idlora.pipeline.cell import Cell
from idlora.pipeline.pool import Ended, run_jobs
from idlora.pipeline.progress import Silent
from idlora.pipeline.typed import ConfigError, typed
from idlora.records import write_text
from idlora.records.identity import run_digest


class TrialsFailed(Exception):
    """Trials that ended neither done nor diverged; what was done is in trials.csv, and the same search goes on."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One learning rate of one experiment and method, and what came of it.

    ``outcome`` is "done", or "diverged" (``heldout_loss`` is then infinite). ``config`` is
    the digest of the trial's whole config: a trial of another config is not taken for this one.
    """

    experiment: str
    method: str
    learning_rate: float
    heldout_loss: float
    outcome: str
    config: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The rate with the lowest held-out loss, and whether it lies at the edge of the grid."""

    experiment: str
    method: str
    learning_rate: float
    heldout_loss: float
    at_edge: bool


def trials_of(cell: Cell, rates: Iterable[float]) -> list[Cell]:
    """The cell once for each learning rate, everything else alike."""
    return [replace(cell, train=replace(cell.train, learning_rate=float(rate))) for rate in rates]


Row = TypeVar("Row", Trial, Chosen)


def search(cells: Iterable[Cell], *, folder: Path, workers: int, told: Callable[[Trial], None]) -> list[Chosen]:
    """Run the trials that trials.csv does not have, ``workers`` at a time, and write chosen.csv.

    Each cell is one trial: a learning rate in ``cell.train`` and a held-out slice in ``cell.data``. trials.csv is
    rewritten after every trial, so an interrupted search goes on where it stopped. Trials and choices of experiments
    and methods that are not among the cells are kept as they are; those of the same ones under another config are
    dropped.

    Raises `ConfigError` where ``workers`` is no number of processes; `TrialsFailed`, after all others were run, where
    a trial ended otherwise than done or diverged.
    Leaves out: any choice but the learning rate, and repeats over seeds.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers} try nothing: give the number of trials to run side by side")
    wanted = {run_digest(cell.config): cell for cell in cells}
    searched = {(cell.experiment, cell.method.name) for cell in wanted.values()}
    path = folder / "trials.csv"
    done = {
        trial.config: trial
        for trial in _read(path, Trial)
        if trial.config in wanted or (trial.experiment, trial.method) not in searched
    }
    waiting = [cell for digest, cell in wanted.items() if digest not in done]
    names = [f"{cell.title} {cell.train.learning_rate:g}" for cell in waiting]
    failed: list[str] = []

    def ended(end: Ended) -> None:
        if end.error is not None:
            failed.append(f"{names[end.job]}: {end.error}")
            return
        trial: Trial = end.value
        done[trial.config] = trial
        _write(path, Trial, sorted(done.values(), key=_order))
        told(trial)

    run_jobs(run_trial, waiting, workers=workers, threads=1, names=names, progress=Silent(), ended=ended)
    if failed:
        raise TrialsFailed("\n".join([f"{len(failed)} trials failed, and no rate was chosen:", *failed]))
    chosen = choose(trial for trial in done.values() if (trial.experiment, trial.method) in searched)
    path = folder / "chosen.csv"
    kept = [choice for choice in _read(path, Chosen) if (choice.experiment, choice.method) not in searched]
    _write(path, Chosen, sorted([*kept, *chosen], key=lambda choice: (choice.experiment, choice.method)))
    return chosen


def choose(trials: Iterable[Trial]) -> list[Chosen]:
    """For each experiment and method the trial with the lowest held-out loss; of equals, the lower rate."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.experiment, trial.method), []).append(trial)
    chosen = []
    for (experiment, method), group in sorted(groups.items()):
        if all(math.isinf(trial.heldout_loss) for trial in group):
            raise ValueError(f"every trial of {experiment}/{method} diverged: add lower learning rates to trials.yaml")
        best = min(group, key=lambda trial: (trial.heldout_loss, trial.learning_rate))
        rates = [trial.learning_rate for trial in group]
        chosen.append(
            Chosen(
                experiment=experiment,
                method=method,
                learning_rate=best.learning_rate,
                heldout_loss=best.heldout_loss,
                at_edge=best.learning_rate in (min(rates), max(rates)),
            )
        )
    return chosen


def run_trial(cell: Cell, progress: Silent) -> Trial:
    """Train the cell in a folder that is thrown away, and score it on its validation rows."""
    import torch

    from idlora.training import NonFiniteLoss, build_adapted, build_base, build_data, train

    torch.set_num_threads(cell.threads)
    model, tokenizer = build_base(cell.model)
    training, apart = build_data(cell.data, tokenizer, root=cell.data_root, revisions=cell.revisions)
    adapted = build_adapted(model, cell.method, cell.train.seed)
    loss, outcome = math.inf, "done"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            train(
                model=adapted,
                tokenizer=tokenizer,
                tokenized=training,
                spec=cell.train,
                base=cell.model,
                folder=Path(scratch),
                on_step=lambda step, total, loss: progress.step("trial", step, total),
            )
            loss = validation_loss(adapted, apart, batch_size=cell.batch_size)
        except NonFiniteLoss:  # a rate too high is a finding, not a failure of the search
            outcome = "diverged"
    return Trial(
        experiment=cell.experiment,
        method=cell.method.name,
        learning_rate=cell.train.learning_rate,
        heldout_loss=loss if math.isfinite(loss) else math.inf,
        outcome=outcome,
        config=run_digest(cell.config),
    )


def validation_loss(model: Any, rows: TokenizedSet, *, batch_size: int) -> float:
    """Mean over the rows of the row's mean loss over its response tokens, in nats.

    Each row counts once, so that in a mixture of tasks an answer of one letter weighs as much as one of many lines.
    """
    from idlora.evals.loss import response_nats  # torch

    prompts = [row["labels"].count(IGNORED) for row in rows.rows]
    pairs = [(row["input_ids"][:at], row["input_ids"][at:]) for row, at in zip(rows.rows, prompts, strict=True)]
    nats = response_nats(model, pairs, batch_size=batch_size)
    return statistics.fmean(each / len(response) for each, (_, response) in zip(nats, pairs, strict=True))


def _order(trial: Trial) -> tuple[str, str, float]:
    return trial.experiment, trial.method, trial.learning_rate


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
