"""The committed reference of a scale: its tables, and its records packed from finished runs."""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reproduction.cells.cell import Cell, distinct
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.protocols import DEFAULT
from reproduction.cli import NotComplete
from reproduction.commands.pivots import Inspection, inspect, replace_rows
from reproduction.commands.tables import Planned, Request
from reproduction.paths import EXPERIMENTS
from reproduction.records.archive import pack
from reproduction.report.page.results import CONTROLS
from reproduction.report.rebuild import make_reference
from reproduction.report.reference import PIVOTS, RECORDS, SHARPNESS, Made, write_reference

REFERENCES = EXPERIMENTS / "reference.yaml"

PROMPTS = 64
"""Prompts of a run's training set for the router's statistics."""


def reference_requests(config: Mapping[str, Any]) -> list[Request]:
    """Return one request per table of the resolved configs/reference.yaml's scale, with the table's seeds."""
    known = yaml.safe_load(REFERENCES.read_text(encoding="utf-8"))
    if config["scale"] not in known:
        raise ConfigError(f"scale={config['scale']} has no reference; {REFERENCES} has those of {', '.join(known)}")
    shared = {**config, "protocol": DEFAULT, "allow_missing": False, "benchmarks": None}
    return [
        request
        for table, own in known[config["scale"]].items()
        for request in Request.from_config(shared | {"table": table} | own)
    ]


def keep_reference(planned: Planned) -> Path:
    """Pack the records of finished cells, build the reference from them, and replace the old one.

    Returns its folder. Raises `NotComplete` and writes nothing if a cell is missing.
    """
    cells = distinct(cell for _, plan in planned for cell in plan.cells.values())
    if lacking := [cell for cell in cells if not cell.complete]:
        raise NotComplete(
            f"{len(lacking)} cells of the reference are missing, such as {lacking[0].title} "
            f"({lacking[0].missing[0]}): nothing was written"
        )
    first = planned[0][0]
    tables = {
        request.table: Made(
            seeds=request.grid().seeds,
            runs=plan.runs,
            evaluations=plan.evaluations,
            benchmarks=request.benchmarks,
            fewer=request.fewer,
        )
        for request, plan in planned
    }

    def put(folder: Path) -> None:
        evaluations = {name for made in tables.values() for name in made.evaluations.values()}
        pack([cell.run for cell in cells], folder / RECORDS, evaluations=evaluations)
        for inspection in _inspections(planned, folder / PIVOTS):
            replace_rows(inspection.out, inspect(inspection))
        if (measured := first.results / SHARPNESS.name).is_file():
            shutil.copy(measured, folder / SHARPNESS)
        write_reference(folder, tables)

    return make_reference(first.results_dir, EXPERIMENTS, scale=first.scale, put=put)


def _inspections(planned: Planned, out: Path) -> Iterator[Inspection]:
    """Yield the inspections that the page shows with its controls: each base, and the controls' run of first seed."""
    if not any(request.table == CONTROLS for request, _ in planned):
        return
    bases: dict[str, Cell] = {}
    for request, plan in planned:
        grid = request.grid()
        for (_, method, seed), cell in plan.cells.items():
            if method == grid.subject and seed == grid.seeds[0]:
                bases.setdefault(cell.model.name, cell)
                if request.table == CONTROLS:
                    data = dataclasses.replace(cell.data, limit=PROMPTS, packing=False)
                    yield dataclasses.replace(
                        _inspection(cell, out), run=cell.run.folder, data=data, data_root=cell.data_root
                    )
    yield from (_inspection(cell, out) for cell in bases.values())


def _inspection(cell: Cell, out: Path) -> Inspection:
    return Inspection(
        model=cell.model,
        method=cell.method,
        seed=cell.train.seed,
        threads=cell.threads,
        revisions=cell.revisions,
        out=out,
    )
