"""What tables will take of this machine: cells, device-hours, disk and downloads, before the first is run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reproduction.cells.cell import Cell, distinct, unfinished
from reproduction.cells.sizes import kinds_of, sort_of
from reproduction.preflight import needs, told
from reproduction.preflight.probe import Probe, device_name, measurable
from reproduction.running.memory import gpus

TOTAL = "all, each cell once"


@dataclass(frozen=True, kw_only=True)
class Share:
    """A table's runs, those that are not finished, the device-seconds left, and of how many runs none are known."""

    name: str
    cells: int
    waiting: int
    training: float
    evaluation: float
    unknown: int

    @property
    def seconds(self) -> float:
        return self.training + self.evaluation


def shares(tables: Mapping[str, Sequence[Cell]], probes: Mapping[str, Probe]) -> list[Share]:
    """Each table's share, and after several tables that of all, in which a run that they share counts once."""
    found = [_share(name, cells, probes) for name, cells in tables.items()]
    if len(found) > 1:
        found.append(_share(TOTAL, [cell for cells in tables.values() for cell in cells], probes))
    return found


def _share(name: str, cells: Sequence[Cell], probes: Mapping[str, Probe]) -> Share:
    runs = distinct(cells)
    waiting = unfinished(runs)
    known = [(cell, probe) for cell in waiting if (probe := probes.get(sort_of(cell))) and not probe.failed]
    return Share(
        name=name,
        cells=len(runs),
        waiting=len(waiting),
        training=sum(probe.training(cell) for cell, probe in known if not cell.run.done),
        evaluation=sum(probe.evaluation(cell) for cell, probe in known),
        unknown=len(waiting) - len(known),
    )


def show(found: Sequence[Share], console: Console) -> None:
    """Print the shares as one table, and what its hours are."""
    unit = "GPU-hours" if gpus() else "CPU-hours"
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("table", no_wrap=True)
    for heading in ("cells", "to run", f"{unit}: training", "evaluation", "together"):
        table.add_column(heading, justify="right")
    for each in found:
        known = each.unknown < each.waiting or not each.waiting
        hours = (
            [f"{seconds / 3600:.2f}" for seconds in (each.training, each.evaluation, each.seconds)]
            if known
            else ["—"] * 3
        )
        hours[-1] += f" (+ {each.unknown} cells not measured)" if known and each.unknown else ""
        table.add_row(each.name, str(each.cells), str(each.waiting), *hours)
    console.print(table)
    last = found[-1]
    if last.seconds:
        devices = max(len(gpus()), 1)
        console.print(
            f"measured on {device_name()}: about {last.seconds / 3600 / devices:.2f} hours of it, if every answer had "
            "its full length; programs that are run come on top",
            highlight=False,
        )


def unmeasured(cells: Sequence[Cell], probes: Mapping[str, Probe]) -> list[str]:
    """Why there are no hours of some cells: one line for each reason."""
    lines = [f"not measured: {sort}: {probe.failed}" for sort, probe in probes.items() if probe.failed]
    if wanting := [cell for cell in unfinished(cells) if not measurable(cell)]:
        lines.append(f"hours need a GPU: {len(wanting)} cells have weights in {wanting[0].model.dtype}")
    return lines


def disk_lines(cells: Sequence[Cell], *, results_dir: Path) -> list[str]:
    """What the cells have yet to put on disk, by place, and how much of it is downloaded; or why that is not known."""
    return told("disk", lambda: _disk_lines(cells, results_dir))


def _disk_lines(cells: Sequence[Cell], results_dir: Path) -> list[str]:
    needed = needs(kinds_of(unfinished(distinct(cells))), results_dir=results_dir)
    lines = [f"  {need.size / 1e9:7.1f} GB  {need.what} → {need.place}" for need in needed if need.size >= 5e7]
    total, loaded = sum(need.size for need in needed), sum(need.size for need in needed if need.download)
    return [f"disk: {total / 1e9:.1f} GB, of which {loaded / 1e9:.1f} GB are downloads", *lines]
