"""Table requests: which tables, at which scale; planned as cells, and reported from the records of their runs."""

import dataclasses
import functools
import gc
import multiprocessing
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from reproduction.cells.cell import Cell
from reproduction.cells.compose import plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.nearest import did_you_mean
from reproduction.cells.override import override
from reproduction.cells.protocols import ALL, DEFAULT
from reproduction.cli import NotComplete
from reproduction.paths import EXPERIMENTS, RESULTS
from reproduction.report import (
    Grid,
    Table,
    gather,
    lay_out,
    load_grid,
    print_table,
    summary,
    write_significance,
    write_table,
)
from reproduction.report.cells import Filled
from reproduction.report.collect import COLUMNS, metric_rows
from reproduction.report.documents import write_csv
from reproduction.report.fullness import fuller
from reproduction.report.grid import CellKey
from reproduction.report.reference import read_reference
from reproduction.report.render import wide
from reproduction.report.statistics import test_rows
from reproduction.system import orphans

Job = tuple[CellKey, str, tuple[str, ...]]
"""Arguments of `compose_cell`: key, scale, overrides."""


def known_tables(scale: str | None = None) -> list[str]:
    """Return the folders of experiments/ that have a grid, or a grid with cells at ``scale``."""
    names = sorted(path.parent.name for path in EXPERIMENTS.glob("*/grid.yaml"))
    return names if scale is None else [name for name in names if load_grid(EXPERIMENTS / name).is_at(scale)]


def chosen_tables(asked: str | Sequence[str], scale: str) -> list[str]:
    """Return the tables that a config's ``table`` names: one, a list, or "all" with cells at the scale."""
    if asked == ALL:
        return known_tables(scale)
    names, known = _listed(asked), known_tables()
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"there is no table={unknown[0]}; {did_you_mean(unknown[0], [*known, ALL])}")
    return list(dict.fromkeys(names))


def chosen_names(asked: str | Sequence[str] | None, known: Iterable[str], *, what: str) -> list[str]:
    """Return the names that the config key ``what`` selects from ``known``; None is all of them."""
    known = list(dict.fromkeys(known))
    names = known if asked is None else _listed(asked)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"{what}={unknown[0]} is in none of the tables asked for; {did_you_mean(unknown[0], known)}")
    return names


def _listed(asked: str | Sequence[str]) -> list[str]:
    return [asked] if isinstance(asked, str) else list(asked)


def _seeds(asked: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if asked is None:
        return None
    seeds = [asked] if isinstance(asked, int) else asked
    if not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise ConfigError(f"seeds={asked} are no seeds: give whole numbers from 0, such as seeds=[0,1,2]")
    return tuple(seeds)


def forwarded(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return every cell's overrides of configs/train.yaml: the keys that both configs have, and ``overrides``."""
    keys = ("data_root", "results_dir", "allow_code_execution", "allow_network_unconfined")
    return (*(override(key, config[key]) for key in keys if config.get(key) is not None), *config["overrides"])


@dataclasses.dataclass(frozen=True)
class Plan:
    """(experiment, method, seed) → cell. Keys may share a run: an untuned base has one for all its tasks."""

    cells: Mapping[CellKey, Cell]

    @property
    def runs(self) -> dict[CellKey, str]:
        """Each key's run folder, whose name holds the digest of the config."""
        return {key: cell.run.name for key, cell in self.cells.items()}

    @property
    def evaluations(self) -> dict[tuple[str, str], str]:
        """(benchmark, protocol name) → name of the evaluation's folder, each benchmark's first default first.

        Raises `ConfigError` if two cells evaluate a benchmark under different protocols of the same name.
        """
        names: dict[tuple[str, str], str] = {}
        for key, cell in self.cells.items():
            for protocol in cell.protocols:
                asked = (protocol.benchmark, protocol.name)
                name = cell.eval_job.eval_folder(protocol).name
                if names.setdefault(asked, name) != name:
                    cell_name = "/".join(map(str, key))
                    raise ConfigError(f"{cell_name} evaluates {asked[0]} under another protocol called {asked[1]}")
        return names


Planned = Sequence[tuple["Request", Plan]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A table at a scale, and the settings of all its cells.

    Args:
        table: a folder of experiments/.
        scale: a name in configs/scale.
        seeds: None takes the table's own.
        benchmarks: the only benchmarks to show and run; None is all of the table's columns.
        protocol: as in configs/eval.
        overrides: overrides of configs/train.yaml for every cell.
        changes: those of ``overrides`` that change what is computed.
        results_dir: parent of the folder <scale>.
        allow_missing: whether gaps are accepted.
        fewer: as in `Grid`.
    """

    table: str
    scale: str
    seeds: tuple[int, ...] | None
    benchmarks: tuple[str, ...] | None
    protocol: str | tuple[str, ...]
    overrides: tuple[str, ...]
    changes: tuple[str, ...]
    results_dir: Path
    allow_missing: bool
    fewer: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> list["Request"]:
        """Return one request for each table of the resolved configs/report.yaml or table.yaml."""
        protocol, benchmarks = config["protocol"], config["benchmarks"]
        return [
            cls(
                table=table,
                scale=config["scale"],
                seeds=_seeds(config["seeds"]),
                benchmarks=None if benchmarks is None else tuple(_listed(benchmarks)),
                protocol=protocol if isinstance(protocol, str) else tuple(protocol),
                overrides=forwarded(config),
                changes=tuple(config["overrides"]),
                results_dir=Path(config["results_dir"]),
                allow_missing=config["allow_missing"],
                fewer={name: tuple(seeds) for name, seeds in config.get("fewer", {}).items()},
            )
            for table in chosen_tables(config["table"], config["scale"])
        ]

    @property
    def results(self) -> Path:
        """results/<scale>: runs/, tables/, significance/, metrics.csv."""
        return self.results_dir / self.scale

    @property
    def tests(self) -> Path:
        """File of the table's significance tests."""
        return self.results / "significance" / f"{self.table}.csv"

    def grid(self) -> Grid:
        """Return the table's grid with the requested seeds and benchmarks, and a note on changed settings."""
        grid = load_grid(EXPERIMENTS / self.table).at(self.scale).showing(self.benchmarks, self.scale)
        note = (f"Not the table's own settings: every cell has {', '.join(self.changes)}.",) if self.changes else ()
        notes = (*grid.notes, *note)
        return dataclasses.replace(grid, seeds=self.seeds or grid.seeds, fewer=self.fewer, notes=notes)

    def jobs(self) -> dict[CellKey, Job]:
        """Return the arguments with which each cell is composed."""
        grid, jobs = self.grid(), {}
        for key in grid.cells():
            own = [override("protocol", self._protocols(grid, key[0]))]
            if self.benchmarks is not None or self.fewer:
                own.append(override("eval", grid.benchmarks(key[0], self.scale, seed=key[2])))
            jobs[key] = (key, self.scale, (*self.overrides, *own))
        return jobs

    def _protocols(self, grid: Grid, experiment: str) -> list[str]:
        """Return the requested protocols and those that the columns of an experiment name."""
        named = {
            name
            for column in grid.columns_at(self.scale)
            if any(grid.experiment(column, base) == experiment for base in grid.bases)
            for name in column.protocols_at(self.scale)
        }
        return list(dict.fromkeys([*_listed(self.protocol), *sorted(named - {None})]))

    def gather(self, plan: Plan) -> Filled:
        """Return the scores of exactly the planned runs and evaluations."""
        return gather(
            self.grid(),
            self.results / "runs",
            scale=self.scale,
            expected=plan.runs,
            evaluations=plan.evaluations,
            flags=shlex.join(self._flags()),
        )

    def _flags(self) -> list[str]:
        """Return command-line arguments that request the same cells."""
        places = [each for each in self.overrides if each.startswith(("data_root=", "results_dir="))]
        flags = [] if self.protocol == DEFAULT else [override("protocol", self.protocol)]
        flags += [] if self.benchmarks is None else [override("benchmarks", self.benchmarks)]
        flags += [override("overrides", self.changes)] if self.changes else []
        return flags + [place for place in places if place != "results_dir=results"]


def plan_config(config: DictConfig, *, gpus: int | None = None) -> Planned:
    """Plan the tables that a composed config requests; see `plan_all`."""
    return plan_all(Request.from_config(plain(config)), gpus=gpus)


def plan_all(requests: Sequence[Request], *, gpus: int | None = None) -> Planned:
    """Compose all cells of the requests in several processes; a cell takes 0.25 s.

    ``gpus`` is the number of GPUs that a cell is launched on: 0 if it is only read, None for this machine's.
    """
    jobs = [request.jobs() for request in requests]
    different = list(dict.fromkeys(job for each in jobs for job in each.values()))
    forks = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(mp_context=forks, initializer=_init_composer, initargs=(os.getpid(),)) as pool:
        cells = dict(zip(different, pool.map(functools.partial(_compose, gpus=gpus), different), strict=True))
    plans = (Plan({key: cells[job] for key, job in each.items()}) for each in jobs)
    return list(zip(requests, plans, strict=True))


def _init_composer(parent: int) -> None:
    orphans.end_with(parent)
    gc.disable()  # each collection would scan all imported modules, and the process ends within seconds


def _compose(job: Job, *, gpus: int | None) -> Cell:
    (experiment, method, seed), scale, overrides = job
    return compose_cell(experiment, method, scale=scale, seed=seed, overrides=overrides, gpus=gpus)


def chosen_cells(planned: Planned, config: Mapping[str, Any]) -> dict[str, list[Cell]]:
    """Return table → its cells of the experiments and methods that a config names."""
    keys = [key for _, plan in planned for key in plan.cells]
    experiments = chosen_names(config["experiments"], (key[0] for key in keys), what="experiments")
    methods = chosen_names(config["methods"], (key[1] for key in keys), what="methods")
    return {
        request.table: [cell for (e, m, _), cell in plan.cells.items() if e in experiments and m in methods]
        for request, plan in planned
    }


def report_tables(planned: Planned, *, committed: Path = RESULTS) -> None:
    """Rebuild metrics.csv and each table's files and significance tests from the records; print the tables.

    A table with gaps, its tests and metrics.csv do not replace more complete files. The reference comes from
    ``committed``. Raises `NotComplete`, after printing all, if a cell is missing and gaps are not allowed.
    """
    first, lacking, gaps = planned[0][0], [], False
    reference = read_reference(committed, first.scale)
    for request, plan in planned:
        filled = request.gather(plan)
        table = lay_out(filled, reference)
        print_table(table, Console())
        lacking += _lacking(request, filled)
        gaps = gaps or bool(table.missing)
        if not _leaves_fuller_files(request, table):
            write_significance(filled, request.tests, table.comparisons)
            print("written: " + ", ".join(map(str, write_table(table, request.results / "tables"))))
    metrics, rows = first.results / "metrics.csv", metric_rows(first.results / "runs", scale=first.scale)
    if not (gaps and _any_fuller({metrics: rows})):
        write_csv(metrics, COLUMNS, rows)
    if lacking:
        raise NotComplete("\n".join(lacking))


def report_statistics(planned: Planned) -> None:
    """Rebuild each table's significance tests from the records and print them; gaps as in `report_tables`."""
    lacking = []
    for request, plan in planned:
        filled = request.gather(plan)
        table = lay_out(filled)
        print(summary(filled, table.comparisons))
        lacking += _lacking(request, filled)
        if not _leaves_fuller_files(request, table):
            write_significance(filled, request.tests, table.comparisons)
            print(f"written: {request.tests}")
    if lacking:
        raise NotComplete("\n".join(lacking))


def _leaves_fuller_files(request: Request, table: Table) -> bool:
    """Return whether a table with gaps must not replace its files because one of them is more complete."""
    path = request.results / "tables" / f"{request.table}.csv"
    return bool(table.missing) and _any_fuller(
        {path: wide(table)[1], request.tests: test_rows(table.filled, table.comparisons)}
    )


def _any_fuller(files: Mapping[Path, list[dict[str, Any]]]) -> bool:
    for path, rows in files.items():
        if fuller(path, rows):
            print(f"nothing written: {path} has more values than the runs that are there now, and stays as it is")
            return True
    return False


def _lacking(request: Request, filled: Filled) -> list[str]:
    if not filled.missing or request.allow_missing:
        return []
    seeds = "" if request.seeds is None else f" SEEDS={','.join(map(str, request.seeds))}"
    return [
        f"{len(filled.missing)} cells of {request.table} are missing at scale={request.scale}: "
        f"`make {request.table} SCALE={request.scale}{seeds}` fills them all (allow_missing=true accepts gaps)"
    ]
