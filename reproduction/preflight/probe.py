"""Time of cells on this machine, measured on a few steps and a few batches of answers of one cell of each sort.

A sort is a base and a tuning method: ranks and row choices make little difference to time. Its first cell runs with
the launch that tables use, with random weights of the base's shape, in a temporary folder. The figures are saved in
results/<scale>/probe.json with the device that they were measured on.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.cells.cell import Cell, unfinished
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.sizes import shape_of, sort_of
from reproduction.evals.answers import THROUGHPUT
from reproduction.evals.task import Protocol
from reproduction.preflight.workload import items_of, text_of
from reproduction.records import read_json, write_json
from reproduction.running.memory import gpus
from reproduction.running.table import fill
from reproduction.system.atomic import scratch_folder

FILE = "probe.json"
MODES = ("kept", "fresh", "none")
STEPS = 6
"""Optimiser steps of a probe; the first three are untimed warm-up."""

TOKENS, CPU_TOKENS = 64, 24
"""Maximum answer tokens of a probe on a GPU and on a CPU."""

ANSWERS, GPU_ANSWERS = 32, 256
"""Number of answers that a probe times on a CPU, and on a GPU if eval_batch_size is not set."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Figures of one sort in probe.json, in seconds of one device.

    Attributes:
        text: rows and characters of the measured training set.
        row: training seconds per row, summed over devices; 0 if nothing is trained.
        rows: rows of the tokenized training set (packs are fewer than examples).
        once: seconds of pivot selection, needed once per base.
        answers: "benchmark protocol" → seconds per prompt, and per decoded token of its answer.
        failed: why there are no figures, else None.
    """

    text: tuple[int, float]
    row: float = 0.0
    rows: int = 0
    once: float = 0.0
    answers: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True)
class ProbedSpeeds:
    """Device-seconds of cells, projected from the probes of their sorts; None without a figure."""

    probes: Mapping[str, Probe]

    def training(self, cell: Cell) -> float | None:
        """Return the seconds of the cell's steps, or of its epochs over its own text, at the probe's speed."""
        if cell.method.kind == "none":
            return 0.0
        probe, text = self.probes.get(sort_of(cell)), text_of(cell)
        if probe is None or probe.failed:
            return None
        rows, characters = probe.text
        if cell.train.max_steps is None:
            return probe.once + cell.train.epochs * probe.rows * probe.row * text.characters / characters
        longer = 1.0 if cell.data.packing else (text.characters / text.rows) / (characters / rows)
        return probe.once + cell.train.max_steps * cell.train.batch_size * probe.row * longer

    def evaluation(self, cell: Cell, protocol: Protocol) -> float | None:
        """Return the seconds of all items and samples if every answer has its full length."""
        probe = self.probes.get(sort_of(cell))
        seconds = probe.answers.get(_name(protocol)) if probe else None
        if seconds is None:
            return None
        prompt, token = seconds
        return items_of(cell, protocol) * protocol.samples * (prompt + token * (protocol.max_new_tokens or 0))


def device_name() -> str:
    """Return the name of the devices that the figures belong to: "2 × NVIDIA H200", or "cpu"."""
    found = gpus()
    return f"{len(found)} × {found[0].name}" if found else "cpu"


def probes(cells: Iterable[Cell], *, results: Path, mode: str) -> dict[str, Probe]:
    """Return the figures of every sort of unfinished cell that this machine can measure.

    Args:
        cells: cells of any tables.
        results: results/<scale>, the folder of probe.json.
        mode: "kept" measures only unknown figures, "fresh" all, "none" nothing.

    Raises:
        ConfigError: unknown mode.
    """
    if mode not in MODES:
        raise ConfigError(f"probe={mode} is no way to get figures: choose {', '.join(MODES)}")
    if mode == "none":
        return {}
    found = read_json(results / FILE) if (results / FILE).is_file() and mode == "kept" else {}
    known = found.get("sorts", {}) if found.get("device") == device_name() else {}
    sorts: dict[str, list[Cell]] = {}
    for cell in unfinished(cells):
        if measurable(cell):
            sorts.setdefault(sort_of(cell), []).append(cell)
    if lacking := {name: alike for name, alike in sorts.items() if not _covers(known.get(name), alike)}:
        known |= _measure(lacking, results)
        write_json(results / FILE, {"device": device_name(), "sorts": known})
    return {name: Probe(**known[name]) for name in sorts}


def measurable(cell: Cell) -> bool:
    """Return whether this machine can measure the cell: 16-bit weights need a GPU."""
    return bool(gpus()) or cell.model.dtype == "float32"


def _name(protocol: Protocol) -> str:
    return f"{protocol.benchmark} {protocol.name}"


def _covers(known: Mapping[str, Any] | None, cells: Sequence[Cell]) -> bool:
    if known is None or known["failed"]:
        return False
    return {_name(protocol) for cell in cells for protocol in cell.protocols} <= known["answers"].keys()


def _measure(sorts: Mapping[str, Sequence[Cell]], results: Path) -> dict[str, dict[str, Any]]:
    results.mkdir(parents=True, exist_ok=True)
    with scratch_folder(results, ".probe-") as folder:
        short = {name: _shortened(cells, folder) for name, cells in sorts.items()}
        failed = fill(short.values(), folder=folder, workers=1).failed
        return {name: dataclasses.asdict(_figures(cell, failed.get(cell.title))) for name, cell in short.items()}


def _shortened(cells: Sequence[Cell], folder: Path) -> Cell:
    """Return the first cell with random weights, few steps, and few items of all the cells' benchmarks."""
    first, model = cells[0], cells[0].model
    if model.init == "pretrained":
        own = None if Path(model.path_or_id).is_dir() else model.path_or_id  # a folder has its own tokenizer
        model = dataclasses.replace(shape_of(model), tokenizer=own, checksum=None)
    answers, tokens = (first.batch_size or GPU_ANSWERS, TOKENS) if gpus() else (ANSWERS, CPU_TOKENS)
    protocols = [
        dataclasses.replace(
            protocol,
            limit=min(-(-answers // protocol.samples), items_of(first, protocol)),
            max_new_tokens=protocol.max_new_tokens and min(protocol.max_new_tokens, tokens),
        )
        for protocol in {_name(protocol): protocol for cell in cells for protocol in cell.protocols}.values()
    ]
    rate = first.train.learning_rate or 1e-5
    train = dataclasses.replace(first.train, max_steps=STEPS, save_steps=0, learning_rate=rate)
    return dataclasses.replace(first, model=model, train=train, protocols=tuple(protocols), results_dir=folder)


def _figures(cell: Cell, failed: str | None) -> Probe:
    probe = Probe(text=dataclasses.astuple(text_of(cell)), failed=failed)
    if failed is not None:
        return probe
    if cell.method.kind != "none":
        resources = cell.run.resources
        probe = dataclasses.replace(
            probe,
            row=resources["step_seconds_median"] * resources["processes"] / cell.train.batch_size,
            rows=resources["data"]["rows"],
            once=resources["selection_seconds"],
        )
    took = {_name(each): read_json(cell.eval_job.answers_folder(each) / THROUGHPUT) for each in cell.protocols}
    answers = {
        name: (each["prefill_seconds"] / each["answers"], each["decode_seconds"] / max(each["generated_tokens"], 1))
        for name, each in took.items()
    }
    return dataclasses.replace(probe, answers=answers)
