"""Cost of training: finished runs on one GPU and on several in training.csv and training.md, and the trainer against a
plain loop in trainer.csv, trainer.md and their provenance.
"""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.records import RecordError, Run, write_json, write_text
from reproduction.records.files import one_sentence
from reproduction.report.documents import document, pipes, write_csv

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "peft")
COLUMNS = (
    "model", "method", "launch", "processes", "scaling", "step_seconds_median", "step_seconds_iqr",
    "step_seconds_max", "tokens_per_second", "peak_memory_bytes", "first_loss", "final_loss", "steps", "batch_size",
    "micro_batch_size", "accumulation", "length", "packing", "tokens_per_step", "parameters_trainable", "adapter_bytes",
    "selection_seconds", "device", "command", "commit", *PACKAGES,
)  # fmt: skip
SAME_CELL = ("model", "method", "batch_size", "length", "packing", "device")
SHARDED = "zero3"
SLOW_STEP = 2.0
"""Multiple of the median above which a step counts as slow: it recompiled, or waited for something."""

LEGEND = (
    "Random weights of the model's shape, real text. A step is an effective batch: forward, backward and update; its "
    "time is the median after warm-up. Memory is the most allocated at once on the fullest GPU. Scaling is tokens/s "
    "over the same cell's on one GPU. Losses are those of the first and the last step."
)
TRAINER_LEGEND = (
    "Random weights, examples of random tokens with the lengths of the multi-task mixture. The plain loop pads the "
    "rows of a step to the longest and takes them in one pass; it is measured before the trainer and again after it. "
    "Times are medians after warm-up; tokens are the examples' own, without padding. The ratio is of tokens a second "
    "to the faster of the two plain loops. Memory is the most allocated at once."
)

Row = dict[str, Any]


def training_rows(runs: Sequence[Run]) -> list[Row]:
    """Return a row for each finished run; ``scaling`` is its tokens/s over those of the same cell on one GPU.

    Raises `RecordError` if a run is not done, or was evaluated as an untuned base.
    """
    rows = [_row(run) for run in runs]
    alone = {_cell(row): row["tokens_per_second"] for row in rows if row["processes"] == 1}
    for row in rows:
        if row["processes"] > 1 and _cell(row) in alone:
            row["scaling"] = row["tokens_per_second"] / alone[_cell(row)]
    return sorted(rows, key=lambda row: (row["model"], row["method"], row["processes"]))


def _cell(row: Row) -> tuple:
    return tuple(row[column] for column in SAME_CELL)


def _row(run: Run) -> Row:
    if not run.done:
        raise RecordError(f"{run.folder} is {run.state or 'no run'}, and only finished runs are measurements")
    config, resources, provenance = run.config, run.resources, run.provenance
    if "step_seconds_median" not in resources:
        raise RecordError(f"{run.folder} is an untuned base: nothing was trained there")
    log = run.folder / "train_log.jsonl"
    with one_sentence("read", log):
        lines = log.read_bytes().splitlines()
    try:
        first_loss, *_ = [json.loads(line)["loss"] for line in lines]
    except (ValueError, TypeError, KeyError):
        raise RecordError(f"{log} has a line that is no step; delete its folder and run the cell again") from None
    git, versions = provenance.get("git") or {}, provenance.get("packages") or {}
    typed = shlex.split(provenance.get("command") or "")
    return {
        **{name: resources[name] for name in COLUMNS if name in resources},
        **{name: versions.get(name) for name in PACKAGES},
        "model": config["model"]["label"],
        "method": config["method"]["label"],
        "scaling": None,
        "first_loss": first_loss,
        "batch_size": config["train"]["batch_size"],
        "length": config["data"]["max_length"],
        "packing": config["data"].get("packing", False),
        "tokens_per_step": round(resources["tokens_per_second"] * resources["step_seconds_median"]),
        "command": shlex.join(part for part in typed if not part.startswith("results_dir=")),  # specific to the machine
        "commit": (git.get("commit") or "") + ("+" if git.get("dirty") else ""),
    }


def problems(rows: Sequence[Row], *, memory_bytes: float, scaling: float) -> list[str]:
    """Return one sentence for each problem in a row: a loss that does not fall, too much memory, a step of several
    times the median, bad scaling.

    Args:
        rows: of `training_rows`.
        memory_bytes: maximum that a GPU may have had allocated.
        scaling: minimum for one cell on two GPUs over one, except under `SHARDED`.
    """
    found = []
    for row in rows:
        name = f"{row['model']}, {row['method']}, {row['processes']} process(es)"
        if not row["final_loss"] < row["first_loss"]:
            found.append(f"{name}: the loss went from {row['first_loss']:.3f} to {row['final_loss']:.3f}")
        if row["peak_memory_bytes"] > memory_bytes:
            found.append(
                f"{name}: {row['peak_memory_bytes'] / 1e9:.1f} GB at the peak, {memory_bytes / 1e9:.1f} allowed"
            )
        if row["step_seconds_max"] > SLOW_STEP * row["step_seconds_median"]:
            found.append(
                f"{name}: a step took {row['step_seconds_max']:.2f} s, the median {row['step_seconds_median']:.2f} s"
            )
        if row["scaling"] is not None and row["launch"] != SHARDED and row["scaling"] < scaling:
            found.append(f"{name}: {row['scaling']:.3f} times the tokens/s of one GPU, {scaling} asked for")
    return found


def write_training(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write training.csv and training.md."""
    head = ["Model", "Method", "GPUs", "rows a step", "s a step", "tokens/s", "scaling", "GB a GPU", "pivots (s)",
            "loss"]  # fmt: skip
    lines = [
        [
            row["model"],
            row["method"],
            f"{row['processes']} ({row['launch']})",
            f"{row['processes']}·{row['accumulation']}·{row['micro_batch_size']}",
            f"{row['step_seconds_median']:.2f}",
            f"{row['tokens_per_second']:,.0f}",
            "—" if row["scaling"] is None else f"{row['scaling']:.2f}",
            f"{row['peak_memory_bytes'] / 1e9:.1f}",
            f"{row['selection_seconds']:.1f}" if row["selection_seconds"] else "—",
            f"{row['first_loss']:.2f} → {row['final_loss']:.2f}",
        ]
        for row in rows
    ]
    rows = [{column: row.get(column) for column in COLUMNS} for row in rows]
    return _write(folder, "training", rows, text=document("What training takes", pipes(head, lines), LEGEND))


def write_trainer(rows: Sequence[Mapping[str, Any]], folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
    """Write trainer.csv, trainer.md and trainer.json, the provenance."""
    head = ["Model", "Method", "Loop", "Passes", "ms a step", "IQR", "tokens/s", "ratio", "set up (s)", "GB"]
    lines = [
        [
            row["model"],
            row["method"],
            row["loop"],
            row["passes"],
            f"{1000 * row['step_seconds_median']:.1f}",
            f"{1000 * row['step_seconds_iqr']:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            "—" if math.isnan(row["ratio"]) else f"{row['ratio']:.2f}",
            f"{row['setup_seconds']:.1f}",
            "—" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e9:.1f}",
        ]
        for row in rows
    ]
    text = document("The trainer and a plain loop", pipes(head, lines), TRAINER_LEGEND)
    write_json(folder / "trainer.json", dict(provenance))
    return [*_write(folder, "trainer", rows, text=text), folder / "trainer.json"]


def _write(folder: Path, name: str, rows: Iterable[Mapping[str, Any]], *, text: str) -> list[Path]:
    spelled = [{key: _spelled(value) for key, value in row.items()} for row in rows]
    write_csv(folder / f"{name}.csv", list(spelled[0]) if spelled else COLUMNS, spelled)
    write_text(folder / f"{name}.md", text)
    return [folder / f"{name}.csv", folder / f"{name}.md"]


def _spelled(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else value
