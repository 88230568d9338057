"""What cells take on this machine, from a few steps and a few batches of answers of one cell of each sort.

A sort is a base and a way of tuning: ranks and choices of rows make little difference to time. Its first cell is run as
tables run theirs, by the same launch, with random weights of the base's shape, in a folder that is gone afterwards.
Kept are the figures, in results/<scale>/probe.json, with the device that they were measured on.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.cells.cell import Cell, unfinished
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.sizes import shape_of, sort_of
from reproduction.data.catalogue import DATASETS
from reproduction.data.examples import to_examples
from reproduction.data.mixture import shares_of
from reproduction.data.sources import load_rows
from reproduction.data.templates import Template
from reproduction.evals.answers import THROUGHPUT
from reproduction.evals.task import Protocol
from reproduction.records import read_json, write_json
from reproduction.running.memory import gpus
from reproduction.running.table import fill
from reproduction.system.atomic import scratch_folder

FILE = "probe.json"
MODES = ("kept", "fresh", "none")
STEPS = 6
"""Optimiser steps of a probe: the first three are warm-up and are not timed."""

TOKENS, CPU_TOKENS = 64, 24
"""Of an answer, that a probe decodes at most on a GPU and on a CPU."""

ANSWERS, GPU_ANSWERS = 32, 256
"""Answers that a probe times on a CPU, and on a GPU where batches have no size of their own."""


@dataclass(frozen=True)
class Text:
    """How much a training set holds: rows, and the characters of all their prompts and responses."""

    rows: int
    characters: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Figures of one sort, in seconds of one device.

    Attributes:
        text: of the training set that it was measured on.
        row: of one row's training, all devices together; 0 where nothing is trained.
        rows: that the training set came to (packs are fewer than examples).
        once: of choosing among the base's weights, once for a base.
        answers: (benchmark, protocol) → seconds of reading a prompt, and of decoding a token of its answer.
        failed: why there are no figures; None where there are.
    """

    text: Text
    row: float = 0.0
    rows: int = 0
    once: float = 0.0
    answers: Mapping[tuple[str, str], tuple[float, float]] = dataclasses.field(default_factory=dict)
    failed: str | None = None

    def training(self, cell: Cell) -> float:
        """Device-seconds of a cell's training: steps, or epochs over its own text, at the probe's speed."""
        if cell.method.kind == "none":
            return 0.0
        text = text_of(cell)
        if cell.train.max_steps is not None:
            longer = (
                1.0 if cell.data.packing else (text.characters / text.rows) / (self.text.characters / self.text.rows)
            )
            return self.once + cell.train.max_steps * cell.train.batch_size * self.row * longer
        return self.once + cell.train.epochs * self.rows * self.row * text.characters / self.text.characters

    def evaluation(self, cell: Cell) -> float:
        """Device-seconds of the evaluations that a cell still lacks, if every answer had its full length."""
        return sum(map(functools.partial(self._asking, cell), cell.eval_job.waiting))

    def _asking(self, cell: Cell, protocol: Protocol) -> float:
        read, decoded = self.answers[protocol.benchmark, protocol.name]
        count = items_of(cell, protocol) * protocol.samples
        return count * (read + decoded * (protocol.max_new_tokens or 0))


def device_name() -> str:
    """What the figures belong to: "2 × NVIDIA H200", or "cpu"."""
    found = gpus()
    return f"{len(found)} × {found[0].name}" if found else "cpu"


def measurable(cell: Cell) -> bool:
    """Whether this machine can measure it at all: 16-bit weights want a GPU."""
    return bool(gpus()) or cell.model.dtype == "float32"


def probes(cells: Iterable[Cell], *, results: Path, mode: str) -> dict[str, Probe]:
    """The figures of every sort of unfinished cell that can be measured here.

    Args:
        cells: of any tables.
        results: results/<scale>, where probe.json is kept.
        mode: "kept" measures what is not known yet, "fresh" everything, "none" nothing, and there are no figures.

    Raises:
        ConfigError: another mode.
    """
    if mode not in MODES:
        raise ConfigError(f"probe={mode} is no way to get figures: choose {', '.join(MODES)}")
    if mode == "none":
        return {}
    device = device_name()
    kept = read_json(results / FILE) if (results / FILE).is_file() and mode == "kept" else {}
    known = kept.get("sorts", {}) if kept.get("device") == device else {}
    sorts: dict[str, list[Cell]] = {}
    for cell in unfinished(cells):
        if measurable(cell):
            sorts.setdefault(sort_of(cell), []).append(cell)
    lacking = {name: alike for name, alike in sorts.items() if not _covers(known.get(name), alike)}
    if lacking:
        known |= _measure(lacking, results)
        write_json(results / FILE, {"device": device, "sorts": known})
    return {name: _probe(known[name]) for name in sorts}


def _covers(known: Mapping[str, Any] | None, cells: Sequence[Cell]) -> bool:
    if known is None or known["failed"]:
        return False
    asked = {f"{protocol.benchmark} {protocol.name}" for cell in cells for protocol in cell.protocols}
    return asked <= known["answers"].keys()


def _measure(sorts: Mapping[str, Sequence[Cell]], results: Path) -> dict[str, dict[str, Any]]:
    results.mkdir(parents=True, exist_ok=True)
    with scratch_folder(results, ".probe-") as folder:
        probing = {name: _short(cells, folder) for name, cells in sorts.items()}
        outcome = fill(probing.values(), folder=folder, workers=1)
        return {name: _figures(cell, outcome.failed.get(cell.title)) for name, cell in probing.items()}


def _short(cells: Sequence[Cell], folder: Path) -> Cell:
    """The first of some cells with random weights, a few steps, and few items of all of their benchmarks."""
    first, model = cells[0], cells[0].model
    if model.init == "pretrained":
        own = None if Path(model.path_or_id).is_dir() else model.path_or_id  # a folder's tokenizer is taken anyway
        model = dataclasses.replace(shape_of(model), tokenizer=own, checksum=None)
    asked = {(protocol.benchmark, protocol.name): protocol for cell in cells for protocol in cell.protocols}
    short = (_shorter(protocol, first) for protocol in asked.values())
    train = dataclasses.replace(
        first.train, max_steps=STEPS, save_steps=0, learning_rate=first.train.learning_rate or 1e-5
    )
    return dataclasses.replace(first, model=model, train=train, protocols=tuple(short), results_dir=folder)


def _shorter(protocol: Protocol, cell: Cell) -> Protocol:
    """A few items of it, and the beginnings of their answers."""
    answers, tokens = (cell.batch_size or GPU_ANSWERS, TOKENS) if gpus() else (ANSWERS, CPU_TOKENS)
    return dataclasses.replace(
        protocol,
        limit=min(-(-answers // protocol.samples), items_of(cell, protocol)),
        max_new_tokens=protocol.max_new_tokens and min(protocol.max_new_tokens, tokens),
    )


def _figures(cell: Cell, failed: str | None) -> dict[str, Any]:
    text = text_of(cell)
    figures: dict[str, Any] = {"failed": failed, "text": [text.rows, text.characters], "answers": {}}
    figures |= {"row": 0.0, "rows": 0, "once": 0.0}
    if failed is not None:
        return figures
    if cell.method.kind != "none":
        resources = cell.run.resources
        figures["row"] = resources["step_seconds_median"] * resources["processes"] / cell.train.batch_size
        figures["rows"], figures["once"] = resources["data"]["rows"], resources["selection_seconds"]
    for protocol in cell.protocols:
        took = read_json(cell.eval_job.answers_folder(protocol) / THROUGHPUT)
        read, decoded = (
            took["prefill_seconds"] / took["answers"],
            took["decode_seconds"] / max(took["generated_tokens"], 1),
        )
        figures["answers"][f"{protocol.benchmark} {protocol.name}"] = [read, decoded]
    return figures


def _probe(figures: Mapping[str, Any]) -> Probe:
    answers = {tuple(name.split(" ", 1)): tuple(seconds) for name, seconds in figures["answers"].items()}
    own = {name: figures[name] for name in ("row", "rows", "once", "failed")}
    return Probe(text=Text(*figures["text"]), answers=answers, **own)


def text_of(cell: Cell) -> Text:
    """How much the cell trains on: counted where its data are in a folder, else as known of the hub's."""
    rows = characters = 0.0
    counted = {name: _text(name, cell) for name in cell.data.sources}
    for name, share in shares_of(
        cell.data.parts or {cell.data.name: 1.0}, {name: count for name, (count, _) in counted.items()}
    ).items():
        count, each = counted[name]
        rows, characters = rows + share * count, characters + share * count * each
    free = rows * (1 - cell.data.held_out) - cell.data.validation_rows
    left = min(free, cell.data.limit or rows)
    return Text(round(left), characters * left / rows)


def items_of(cell: Cell, protocol: Protocol) -> int:
    """How many items of a protocol's benchmark the cell is evaluated on."""
    count = protocol.task.published_rows if cell.data_root is None else _items(protocol, cell.data_root)
    return count if protocol.limit is None else min(protocol.limit, count)


def _text(name: str, cell: Cell) -> tuple[int, float]:
    """Rows of one of the cell's training sets, and the mean characters of one."""
    if cell.data_root:
        return _counted(name, cell.data_root, cell.data.prompt_template)
    return DATASETS[name].rows["train"], DATASETS[name].characters


@functools.cache
def _counted(name: str, root: Path, template: Template) -> tuple[int, float]:
    """Rows of a training set, and the mean characters of one."""
    examples = to_examples(name, load_rows(name, "train", root=root), template=template)
    return len(examples), sum(len(each.prompt) + len(each.response) for each in examples) / len(examples)


@functools.cache
def _items(protocol: Protocol, root: Path) -> int:
    return len(protocol.task.rows(root=root))
