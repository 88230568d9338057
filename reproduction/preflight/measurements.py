"""Time of cells on GPUs of other machines, from the measurements in results.

Training: a cell's tokens over the tokens/s of its base and method in a folder's training.csv, on the requested number
of GPUs. Evaluation: prompts and new tokens of a cell's benchmarks times the seconds of each for its base in
evaluation.csv. A method without a row of its own, such as another rank, uses the row of the method it is a variant of.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose, group_files, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import method_spec
from reproduction.cells.sizes import tuning_of
from reproduction.evals.task import Protocol
from reproduction.paths import REPOSITORY, RESULTS
from reproduction.preflight.workload import items_of, text_of, tokens_of
from reproduction.records.files import one_sentence
from reproduction.report.speed import read_speed

FILES = "training.csv", "evaluation.csv"
"""Files of measurements in a folder."""

Rows = Mapping[tuple[str, ...], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class MeasuredSpeeds:
    """Device-seconds of cells on a number of GPUs of one memory size, from measured rows; None without a row.

    Attributes:
        gpus: number of GPUs that share a training, and that each evaluate a part of the questions.
        training_rows: (model's label, method's label) → row of training.csv, with "source", the file's path.
        evaluation_rows: (model's label, benchmark, protocol) → row of evaluation.csv, likewise.
        sorts: sort of tuning → label of the measured method.
        refused: what was measured and does not count → the reason.
    """

    gpus: int
    training_rows: Rows
    evaluation_rows: Rows
    sorts: Mapping[str, str]
    refused: Mapping[str, str]

    def method(self, cell: Cell) -> str:
        """Return the label of the measured method that the cell's method is a variant of, else its own."""
        return self.sorts.get(tuning_of(cell.method), cell.method.label)

    def training_row(self, cell: Cell) -> Mapping[str, str] | None:
        """Return the training row of the cell's own method, else of its sort, else None."""
        rows = (self.training_rows.get((cell.model.label, label)) for label in (cell.method.label, self.method(cell)))
        return next(filter(None, rows), None)

    def evaluation_row(self, cell: Cell, protocol: Protocol) -> Mapping[str, str] | None:
        """Return the row of the cell's base on the benchmark."""
        return self.evaluation_rows.get((cell.model.label, protocol.benchmark, protocol.name))

    def training(self, cell: Cell) -> float | None:
        """Return the training seconds summed over all GPUs."""
        if cell.method.kind == "none":
            return 0.0
        if (row := self.training_row(cell)) is None:
            return None
        tokens = tokens_of(cell) * cell.train.epochs
        if cell.train.max_steps is not None:
            tokens = tokens_of(cell) / text_of(cell).rows * cell.train.max_steps * cell.train.batch_size
        return self.gpus * (float(row["selection_seconds"]) + tokens / float(row["tokens_per_second"]))

    def evaluation(self, cell: Cell, protocol: Protocol) -> float | None:
        """Return the evaluation seconds of one GPU if every answer has its full length."""
        if (row := self.evaluation_row(cell, protocol)) is None:
            return None
        prompt = float(row["prefill_seconds"]) / int(row["answers"])
        token = float(row["decode_seconds"]) / max(int(row["generated_tokens"]), 1)
        return items_of(cell, protocol) * protocol.samples * (prompt + token * (protocol.max_new_tokens or 0))


def read_measured(folders: Sequence[Path], *, gpus: int, memory_gb: float) -> MeasuredSpeeds:
    """Read the measurements of the folders; the first folder takes precedence. Raises `RecordError`."""
    training: dict[tuple[str, ...], dict[str, str]] = {}
    evaluation: dict[tuple[str, ...], dict[str, str]] = {}
    refused: dict[str, str] = {}

    def fits(row: Mapping[str, str], column: str, what: str) -> bool:
        if (taken := float(row[column] or 0) / 1e9) > memory_gb:
            refused[what] = f"took {taken:.1f} GB on {row['device']}, and {memory_gb:g} GB are asked for"
        return taken <= memory_gb

    for folder in folders:
        for row in _rows(folder / "training.csv"):
            what = f"training {row['model']} with {row['method']}"
            if int(row["processes"]) == gpus and fits(row, "peak_memory_bytes", what):
                training.setdefault((row["model"], row["method"]), row)
        for row in read_speed(folder):
            if fits(row, "gpu_bytes", f"evaluating {row['model']} on {row['benchmark']} {row['protocol']}"):
                key = row["model"], row["benchmark"], row["protocol"]
                evaluation.setdefault(key, row | {"source": _named(folder / "evaluation.csv")})
    return MeasuredSpeeds(
        gpus=gpus, training_rows=training, evaluation_rows=evaluation,
        sorts=_sorts({label for _, label in training}), refused=refused,
    )  # fmt: skip


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with one_sentence("read", path), path.open(newline="", encoding="utf-8") as file:
        return [row | {"source": _named(path)} for row in csv.DictReader(file)]


def _named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


def _sorts(labels: Iterable[str]) -> dict[str, str]:
    """Return sort of tuning → label for the project's methods with these labels."""
    found: dict[str, str] = {}
    for path in group_files("method"):
        if (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("label") in labels:
            method = method_spec(plain(compose("train", [f"method={path.stem}", "scale=paper"]).method))
            found.setdefault(tuning_of(method), method.label)
    return found


def measured_here(folders: str | Sequence[str] | None, *, gpus: int, memory_gb: float) -> MeasuredSpeeds:
    """Call `read_measured` on one or several folders; None is all GPU folders of this repository's results, by name.

    Raises `ConfigError` for a folder without measurements, and `RecordError`.
    """
    if folders is None:
        named = (path.parent for name in FILES for path in RESULTS.glob(f"*/{name}"))
        folders = sorted({str(folder.relative_to(REPOSITORY)) for folder in named if folder.name != "cpu"})
    paths = [REPOSITORY / folder for folder in ([folders] if isinstance(folders, str) else folders)]
    for path in paths:
        if not any((path / name).is_file() for name in FILES):
            raise ConfigError(
                f"measured={_named(path)} has no {' and no '.join(FILES)}: give a folder such as results/h200"
            )
    return read_measured(paths, gpus=gpus, memory_gb=memory_gb)
