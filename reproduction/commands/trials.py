"""Trials of a learning-rate search: training of a cell in a temporary folder, its losses, and the CSV files."""

import gc
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import parse_dataclass
from reproduction.commands.pivots import spelled
from reproduction.data.tokenization import IGNORED, TokenizedSet
from reproduction.records import LEFT_OUT
from reproduction.records.identity import run_digest
from reproduction.report.documents import read_csv, write_csv
from reproduction.running.memory import fitted_now
from reproduction.running.progress import NullProgress
from reproduction.system.atomic import scratch_folder


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One learning rate of one setting, and its result.

    Args:
        setting: digest of what is trained apart from the rate; the search fills it in.
        experiment: with ``method`` and ``model`` the first request for the setting, for human readers.
        outcome: "done", or "diverged" (the losses are then infinite).
        config: digest of the trial's whole config, which tells it from trials of other configs.
        heldout_loss: mean over the held-out sources of nats per token; None if not requested.
        steps, trained, seconds: training steps, trained parameters and `Resources.train_seconds`.
    """

    setting: str = ""
    experiment: str
    method: str
    learning_rate: float
    validation_loss: float
    outcome: str
    config: str
    heldout_loss: float | None = None
    steps: int | None = None
    trained: int | None = None
    seconds: float | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A setting's rate with the lowest validation loss, and whether it lies at the edge of the tried rates."""

    setting: str
    experiment: str
    method: str
    learning_rate: float
    validation_loss: float
    at_edge: bool
    model: str | None = None


Row = TypeVar("Row", Trial, Chosen)


def trials_of(cell: Cell, rates: Iterable[float]) -> list[Cell]:
    """Return a copy of the cell for each learning rate."""
    return [replace(cell, train=replace(cell.train, learning_rate=float(rate))) for rate in rates]


def run_trial(cell: Cell, progress: NullProgress, *, heldout_at: int | None = None) -> Trial:
    """Train the cell and compute its validation loss; if it has `heldout_at` steps, also its held-out loss."""
    import torch

    from reproduction.evals.batching import CPU_ROWS
    from reproduction.training import (
        NonFiniteLoss,
        build_adapted,
        build_data,
        launching,
        packing_of,
        shared_base,
        train,
    )

    rate, heldout = cell.train.learning_rate, cell.train.max_steps is not None and cell.train.max_steps == heldout_at
    diverged = Trial(
        model=cell.model.name,
        experiment=cell.experiment,
        method=cell.method.name,
        learning_rate=rate,
        validation_loss=math.inf,
        outcome="diverged",
        config=run_digest(cell.config),
        heldout_loss=math.inf if heldout else None,
    )
    gc.collect()  # the previous trial's trainer leaves reference cycles that hold its model
    torch.set_num_threads(cell.threads)
    launching.cap_memory(cell.launch.memory_gb)
    model, tokenizer = shared_base.take(cell.model)
    training, validation = build_data(cell.data, tokenizer, root=cell.data_root, revisions=cell.revisions)
    adapted = build_adapted(model, cell.method, cell.train.seed)
    with scratch_folder() as scratch:
        try:
            resources = train(
                model=adapted,
                tokenizer=tokenizer,
                tokenized=training,
                spec=fitted_now(cell, packing=packing_of(adapted, training, cell.train)).train,
                base=cell.model,
                folder=scratch,
                on_step=lambda step, total, loss: progress.step(
                    f"trial at {rate:g}", step, total, note=f"loss {loss:.2f}"
                ),
            )
        except NonFiniteLoss:  # a rate too high is a finding, not a failure of the search
            return diverged
    loss = mean_row_loss(adapted, validation, batch_size=cell.batch_size or CPU_ROWS)
    unseen = heldout_loss(adapted, tokenizer, cell) if heldout else None
    if cell.method.kind == "peft":
        shared_base.give_back(adapted)
    if not math.isfinite(loss):
        return diverged
    return replace(
        diverged,
        validation_loss=loss,
        outcome="done",
        heldout_loss=unseen,
        steps=resources.steps,
        trained=resources.parameters_trainable,
        seconds=resources.train_seconds,
    )


def mean_row_loss(model: Any, rows: TokenizedSet, *, batch_size: int) -> float:
    """Return the mean over rows of each row's mean loss over its response tokens, in nats.

    Each row counts once, so that in a mixture of tasks a one-letter answer weighs as much as a long one.
    """
    from reproduction.evals.loss import response_nats  # torch

    prompts = [row["labels"].count(IGNORED) for row in rows.rows]
    pairs = [(row["input_ids"][:at], row["input_ids"][at:]) for row, at in zip(rows.rows, prompts, strict=True)]
    nats = response_nats(model, pairs, batch_size=batch_size)
    return statistics.fmean(each / len(response) for each, (_, response) in zip(nats, pairs, strict=True))


def heldout_loss(model: Any, tokenizer: Any, cell: Cell) -> float:
    """Return the mean over the cell's held-out sources of nats per response token, as in the tables' column."""
    from reproduction.evals.loss import Loss  # torch
    from reproduction.evals.prompts import Prompts

    def losses() -> Iterator[float]:
        for protocol in (protocol for protocol in cell.protocols if protocol.scoring == "loss"):
            prompts = Prompts(**cell.eval_job.asked(protocol)).fitting(lambda some: [True] * len(some))
            asked = Loss(model, tokenizer, prompts, protocol=protocol, stops=())
            batches = asked.batches([(prompt, [0]) for prompt in prompts], asked.side_by_side())
            found = [each for batch in batches for each in asked.answer(batch) if LEFT_OUT not in each]
            yield sum(each["nats"] for each in found) / sum(each["tokens"] for each in found)

    return statistics.fmean(losses())


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Read the rows of a file of `write_rows`, none if there is no file; an empty text is None."""
    return [
        parse_dataclass(kind, {key: value or None for key, value in row.items()}, where=str(path))
        for row in read_csv(path)
    ]


def write_rows(path: Path, kind: type, rows: Iterable[Any]) -> None:
    """Write a CSV file with a row for each instance of a dataclass ``kind``; None is an empty text."""
    formatted = ({key: spelled(value, 6) for key, value in asdict(row).items()} for row in rows)
    write_csv(path, [field.name for field in fields(kind)], formatted)
