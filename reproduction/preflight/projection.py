"""What tables will take on GPUs that are not here: device-hours from the measurements in results, and whose they are.

Training: a cell's tokens, over the tokens/s of its base and method in a folder's training.csv, on as many GPUs as asked
for. Evaluation: prompts and new tokens of a cell's benchmarks, each at the seconds that evaluation.csv has for one of
its base. A method that has no row of its own, such as another rank of it, takes that of the method it is a variant of.
What no row covers is named, and stands in no sum.
"""

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from reproduction.cells.cell import Cell, distinct, unfinished
from reproduction.cells.compose import compose, group_files, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import method_spec
from reproduction.cells.sizes import shape_of, tuning_of
from reproduction.data.catalogue import CHARACTERS_A_TOKEN, DATASETS
from reproduction.data.mixture import shares_of
from reproduction.evals.task import Protocol
from reproduction.paths import REPOSITORY, RESULTS
from reproduction.preflight.plan import TOTAL
from reproduction.preflight.probe import items_of, text_of
from reproduction.records.files import one_sentence
from reproduction.report.speed import read_speed

Rows = Mapping[tuple[str, ...], Mapping[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a folder of results, or several, say of so many GPUs of so much memory.

    Attributes:
        gpus: that work on a training, and of which each evaluates a part of the questions.
        memory_gb: most that one of them may have allocated.
        training: (model's label, method's label) → row of training.csv, with "source", the file's path.
        evaluation: (model's label, benchmark, protocol) → row of evaluation.csv, likewise.
        sorts: sort of tuning → label of the method that was measured.
        refused: why rows do not count.
    """

    gpus: int
    memory_gb: float
    training: Rows
    evaluation: Rows
    sorts: Mapping[str, str]
    refused: tuple[str, ...]

    def training_row(self, cell: Cell) -> Mapping[str, str] | None:
        """The row that says what the cell's training takes, of its own method before one of its sort."""
        labels = (cell.method.label, self.sorts.get(tuning_of(cell.method)))
        return next((row for label in labels if (row := self.training.get((cell.model.label, label)))), None)

    def training_seconds(self, cell: Cell) -> float | None:
        """Of all GPUs together, added up; None where nothing like it was measured."""
        if cell.method.kind == "none":
            return 0.0
        row = self.training_row(cell)
        if row is None:
            return None
        tokens = tokens_of(cell) * cell.train.epochs
        if cell.train.max_steps is not None:
            tokens = tokens_of(cell) / text_of(cell).rows * cell.train.max_steps * cell.train.batch_size
        return self.gpus * (float(row["selection_seconds"]) + tokens / float(row["tokens_per_second"]))

    def evaluation_seconds(self, cell: Cell, protocol: Protocol) -> float | None:
        """Of one GPU, if every answer has its full length; None where the base was not measured on the benchmark."""
        row = self.evaluation.get((cell.model.label, protocol.benchmark, protocol.name))
        if row is None:
            return None
        each = float(row["prefill_seconds"]) / int(row["answers"])
        token = float(row["decode_seconds"]) / max(int(row["generated_tokens"]), 1)
        return items_of(cell, protocol) * protocol.samples * (each + token * (protocol.max_new_tokens or 0))


def read_measured(folders: Sequence[Path], *, gpus: int, memory_gb: float) -> Measured:
    """The measurements of the folders; of what several have, the first one's. Raises `RecordError`."""
    training: dict[tuple[str, ...], dict[str, str]] = {}
    evaluation: dict[tuple[str, ...], dict[str, str]] = {}
    refused: list[str] = []
    for folder in folders:
        for row in _training_rows(folder / "training.csv"):
            what = f"training {row['model']} with {row['method']}"
            if int(row["processes"]) == gpus and _fits(row, "peak_memory_bytes", memory_gb, what=what, refused=refused):
                training.setdefault((row["model"], row["method"]), row)
        for row in read_speed(folder):
            row = row | {"source": _named(folder / "evaluation.csv")}
            what = f"evaluating {row['model']} on {row['benchmark']}"
            if _fits(row, "gpu_bytes", memory_gb, what=what, refused=refused):
                evaluation.setdefault((row["model"], row["benchmark"], row["protocol"]), row)
    return Measured(
        gpus=gpus, memory_gb=memory_gb, training=training, evaluation=evaluation,
        sorts=_sorts({label for _, label in training}), refused=tuple(refused),
    )  # fmt: skip


def _training_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with one_sentence("read", path), path.open(newline="", encoding="utf-8") as file:
        return [row | {"source": _named(path)} for row in csv.DictReader(file)]


def _named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


def _fits(row: Mapping[str, str], column: str, memory_gb: float, *, what: str, refused: list[str]) -> bool:
    taken = float(row[column] or 0) / 1e9
    if taken > memory_gb:
        refused.append(f"{what} took {taken:.1f} GB on {row['device']}, and {memory_gb:g} GB are asked for")
    return taken <= memory_gb


def _sorts(labels: Iterable[str]) -> dict[str, str]:
    """Sort of tuning → label, of our methods that have these labels."""
    wanted, found = set(labels), {}
    for path in group_files("method"):
        if (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("label") in wanted:
            method = method_spec(plain(compose("train", [f"method={path.stem}", "scale=paper"]).method))
            found.setdefault(tuning_of(method), method.label)
    return found


def tokens_of(cell: Cell) -> float:
    """Prompt and response tokens of one epoch, from the characters of the cell's training set."""
    rows = {name: DATASETS[name].rows["train"] for name in cell.data.sources}
    shares = shares_of(cell.data.parts or {cell.data.name: 1.0}, rows)
    kind = (shape_of(cell.model).shape or {}).get("model_type", "llama")
    by_source = CHARACTERS_A_TOKEN.get(kind, CHARACTERS_A_TOKEN["llama"])
    characters = {name: share * rows[name] * DATASETS[name].characters for name, share in shares.items()}
    tokens = sum(count / by_source[name] for name, count in characters.items())
    return text_of(cell).characters * tokens / sum(characters.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A table's runs that are not finished, device-seconds of what was measured, and what was not, in words."""

    name: str
    waiting: int
    training: float
    evaluation: float
    missing: tuple[str, ...]


def project(tables: Mapping[str, Sequence[Cell]], measured: Measured) -> list[Share]:
    """Each table's share, and after several tables that of all, in which a run that they share counts once."""
    found = [_share(name, cells, measured) for name, cells in tables.items()]
    if len(found) > 1:
        found.append(_share(TOTAL, [cell for cells in tables.values() for cell in cells], measured))
    return found


def _share(name: str, cells: Sequence[Cell], measured: Measured) -> Share:
    waiting = unfinished(distinct(cells))
    training = evaluation = 0.0
    missing: dict[str, int] = {}
    for cell in waiting:
        seconds = 0.0 if cell.run.done else measured.training_seconds(cell)
        if seconds is None:
            what = f"training {cell.model.label} with {measured.sorts.get(tuning_of(cell.method), cell.method.label)}"
            missing[what] = missing.get(what, 0) + 1
        training += seconds or 0.0
        for protocol in cell.eval_job.waiting:
            seconds = measured.evaluation_seconds(cell, protocol)
            if seconds is None:
                what = f"evaluating {cell.model.label} on {protocol.benchmark} {protocol.name}"
                missing[what] = missing.get(what, 0) + 1
            evaluation += seconds or 0.0
    named = tuple(f"{what} ({count} {'cell' if count == 1 else 'cells'})" for what, count in missing.items())
    return Share(name=name, waiting=len(waiting), training=training, evaluation=evaluation, missing=named)


def show(found: Sequence[Share], measured: Measured, console: Console) -> None:
    """Print the shares as one table: GPU-hours, and the clock's with all GPUs at work."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("table", no_wrap=True)
    for heading in ("to run", "GPU-h: training", "evaluation", f"h on {measured.gpus} GPUs", "gaps"):
        table.add_column(heading, justify="right")
    for each in found:
        hours = [each.training, each.evaluation, (each.training + each.evaluation) / measured.gpus]
        table.add_row(
            each.name, str(each.waiting), *(f"{seconds / 3600:.1f}" for seconds in hours), str(len(each.missing))
        )
    console.print(table)


def sources(cells: Sequence[Cell], found: Sequence[Share], measured: Measured) -> list[str]:
    """Which measurement each figure comes from, what has none, and what the hours assume; one line each."""
    waiting = unfinished(distinct(cells))
    trained = {
        f"  training {row['model']} with {row['method']}: {float(row['tokens_per_second']):,.0f} tokens/s on "
        f"{row['processes']} × {row['device']} ({row['launch']}; {row['source']})": None
        for cell in waiting
        if cell.method.kind != "none" and (row := measured.training_row(cell))
    }
    answered = {
        f"  {row['model']} on {row['benchmark']} {row['protocol']}: {int(row['answers']):,} answers, prompts "
        f"{float(row['prefill_seconds']):.1f} s, new tokens {float(row['decode_seconds']):.1f} s on 1 × "
        f"{row['device']} ({row['weights']} weights; {row['source']})": None
        for cell in waiting
        for protocol in cell.eval_job.waiting
        if (row := measured.evaluation.get((cell.model.label, protocol.benchmark, protocol.name)))
    }
    missing = dict.fromkeys(line for share in found[-1:] for line in share.missing)
    lines = ["measured:", *trained, *answered] if trained or answered else ["nothing of it was measured"]
    if missing or measured.refused:
        lines += ["without a measurement, and in no hours:", *(f"  {line}" for line in (*missing, *measured.refused))]
    return [*lines, *ASSUMED]


ASSUMED = (
    "assumed: tokens from the training sets' characters; padding as in packed rows, which have hardly any; another "
    "rank as fast as its method's measured one; an adapted model evaluated as fast as its base; every answer of full "
    "length; loading, checkpoints and programs not counted",
)


def measured_here(folders: Sequence[str] | None, *, gpus: int, memory_gb: float) -> Measured:
    """`read_measured` of some folders; None is all that this repository's results have of GPUs, by name.

    Raises `ConfigError` for numbers of GPUs or of bytes that are none, and `RecordError`.
    """
    for name, value in (("gpus", gpus), ("memory_gb", memory_gb)):
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"{name}={value} is none to plan for: give a number above 0")
    if folders is None:
        named = (path.parent for name in ("training.csv", "evaluation.csv") for path in RESULTS.glob(f"*/{name}"))
        folders = sorted({str(folder.relative_to(REPOSITORY)) for folder in named if folder.name != "cpu"})
    return read_measured([REPOSITORY / folder for folder in folders], gpus=gpus, memory_gb=memory_gb)
