"""Costs of tables before the first cell runs: cells, device-hours, disk and downloads."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from rich.console import Console
from rich.table import Table

from reproduction.cells.cell import Cell, distinct, unfinished
from reproduction.cells.sizes import kinds_of
from reproduction.evals.task import Protocol
from reproduction.preflight import checked, needs
from reproduction.preflight.machine import called
from reproduction.preflight.measurements import MeasuredSpeeds
from reproduction.preflight.probe import Probe, device_name, measurable
from reproduction.running.memory import gpus

TOTAL = "all, each cell once"


class Speeds(Interface):
    """Seconds of one device that a cell takes; None if unknown."""

    def training(self, cell: Cell) -> float | None: ...
    def evaluation(self, cell: Cell, protocol: Protocol) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class TableHours:
    """Device-seconds of a table's unfinished runs.

    Attributes:
        cells, waiting, unknown: number of its runs, of unfinished ones, and of those with a missing figure.
        trainings, evaluations: numbers of those to come with a known figure, and of all to come.
        training, evaluation: seconds of one device, summed over the known figures.
    """

    name: str
    cells: int
    waiting: int
    unknown: int
    trainings: tuple[int, int]
    evaluations: tuple[int, int]
    training: float
    evaluation: float

    @property
    def seconds(self) -> float:
        return self.training + self.evaluation


def table_hours(tables: Mapping[str, Sequence[Cell]], speeds: Speeds) -> list[TableHours]:
    """Return each table's hours, and for several tables also the total, in which a shared run counts once."""
    found = [_hours(name, cells, speeds) for name, cells in tables.items()]
    if len(found) > 1:
        found.append(_hours(TOTAL, [cell for cells in tables.values() for cell in cells], speeds))
    return found


def _hours(name: str, cells: Sequence[Cell], speeds: Speeds) -> TableHours:
    runs = distinct(cells)
    waiting = unfinished(runs)
    training = [0.0 if cell.run.done else speeds.training(cell) for cell in waiting]
    to_train = [seconds for seconds in training if seconds != 0.0]
    answering = [[speeds.evaluation(cell, protocol) for protocol in cell.eval_job.waiting] for cell in waiting]
    return TableHours(
        name=name,
        cells=len(runs),
        waiting=len(waiting),
        unknown=sum(None in (trained, *answered) for trained, answered in zip(training, answering, strict=True)),
        trainings=_known(to_train),
        evaluations=_known([seconds for answered in answering for seconds in answered]),
        training=sum(filter(None, training)),
        evaluation=sum(seconds or 0.0 for answered in answering for seconds in answered),
    )


def _known(seconds: Sequence[float | None]) -> tuple[int, int]:
    return sum(each is not None for each in seconds), len(seconds)


def answer(found: Sequence[TableHours], *, gpus: int, memory_gb: float) -> str:
    """Return the sentence on the hours of all tables on GPUs that are not here."""
    total, machine = found[-1], called(gpus, memory_gb)
    (trained, trainings), (answered, evaluations) = total.trainings, total.evaluations
    if not total.waiting:
        return f"no hours: nothing is left for {machine} to do"
    if not trained + answered:
        return f"no hours: no training and no evaluation that is left was measured on {machine}"
    measured = f"{trained} of {trainings} trainings and {answered} of {evaluations} evaluations are measured"
    hours = f"{total.seconds / gpus / 3600:.1f} hours on {machine}: {measured}"
    return f"at least {hours}; the others come on top" if total.unknown else hours


def show(found: Sequence[TableHours], console: Console, *, device: str, devices: int) -> None:
    """Print one row per table: hours of one ``device`` ("GPU" or "CPU"), and hours with all ``devices`` in use."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("table", no_wrap=True)
    clock = f"h on {devices} {device}" + "s" * (devices > 1)
    for heading in ("cells", "to run", f"{device}-h: training", "evaluation", clock, "gaps"):
        table.add_column(heading, justify="right")
    for each in found:
        hours = [f"{seconds / 3600:.2f}" for seconds in (each.training, each.evaluation, each.seconds / devices)]
        known = each.seconds or not each.unknown
        table.add_row(
            each.name, str(each.cells), str(each.waiting), *(hours if known else ["—"] * 3), str(each.unknown)
        )
    console.print(table)


def show_probed(found: Sequence[TableHours], console: Console) -> None:
    """Print the hours on this machine."""
    show(found, console, device="GPU" if gpus() else "CPU", devices=max(len(gpus()), 1))
    if found[-1].seconds:
        console.print(
            f"measured on {device_name()}, if every answer has its full length; running programs comes on top",
            highlight=False,
        )


def unmeasured(cells: Sequence[Cell], probes: Mapping[str, Probe]) -> list[str]:
    """Return one line for each reason why cells have no hours."""
    lines = [f"not measured: {sort}: {probe.failed}" for sort, probe in probes.items() if probe.failed]
    if wanting := [cell for cell in unfinished(cells) if not measurable(cell)]:
        lines.append(f"hours need a GPU: {len(wanting)} cells have weights in {wanting[0].model.dtype}")
    return lines


def sources(cells: Sequence[Cell], speeds: MeasuredSpeeds) -> list[str]:
    """Return lines on the measurement behind each figure, on missing ones, and on the hours' assumptions."""
    measured, missing = {}, Counter()
    for cell in unfinished(distinct(cells)):
        if cell.method.kind != "none" and not cell.run.done:
            if row := speeds.training_row(cell):
                measured[
                    f"  training {row['model']} with {row['method']}: {float(row['tokens_per_second']):,.0f} tokens/s "
                    f"on {row['processes']} × {row['device']} ({row['launch']}; {row['source']})"
                ] = None
            else:
                missing[f"training {cell.model.label} with {speeds.method(cell)}"] += 1
        for protocol in cell.eval_job.waiting:
            if row := speeds.evaluation_row(cell, protocol):
                measured[
                    f"  {row['model']} on {row['benchmark']} {row['protocol']}: {int(row['answers']):,} answers, "
                    f"prompts {float(row['prefill_seconds']):.1f} s, new tokens {float(row['decode_seconds']):.1f} s "
                    f"on 1 × {row['device']} ({row['weights']} weights; {row['source']})"
                ] = None
            else:
                missing[f"evaluating {cell.model.label} on {protocol.benchmark} {protocol.name}"] += 1
    lines = ["measured:", *measured] if measured else ["nothing of it was measured"]
    if missing:
        lines.append("without a measurement, and in no hours:")
    for what, count in missing.items():
        reason = f": it {speeds.refused[what]}" if what in speeds.refused else ""
        lines.append(f"  {what} ({count} cell{'s' * (count > 1)}){reason}")
    return [
        *lines,
        "assumed: tokens from the training sets' characters; padding as in packed rows, which have hardly any; another "
        "rank as fast as its method's measured one; an adapted model evaluated as fast as its base; every answer of "
        "full length; loading, checkpoints and programs not counted",
    ]


def disk_lines(cells: Sequence[Cell], *, results_dir: Path, here: bool = True) -> list[str]:
    """Return lines on what the cells have yet to write, and the downloads in it; or why it is unknown.

    ``here``: it is written on this machine, and its places are named.
    """

    def lines() -> list[str]:
        needed = needs(kinds_of(unfinished(distinct(cells))), results_dir=results_dir)
        listed = [
            f"  {need.size / 1e9:7.1f} GB  {need.what}" + f" → {need.place}" * here
            for need in needed
            if need.size >= 5e7
        ]
        total, loaded = sum(need.size for need in needed), sum(need.size for need in needed if need.download)
        return [f"disk: {total / 1e9:.1f} GB, of which {loaded / 1e9:.1f} GB are downloads", *listed]

    return checked("disk", lines)
