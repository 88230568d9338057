"""Tables as a person asks for them: which ones, at which scale; planned, and reported from what their runs left."""

import dataclasses
import functools
import gc
import multiprocessing
import os
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.override import override
from reproduction.cells.protocols import ALL, DEFAULT
from reproduction.cli import NotComplete
from reproduction.paths import EXPERIMENTS, RESULTS
from reproduction.report import (
    Grid,
    Table,
    console,
    gather,
    lay_out,
    load_grid,
    summary,
    write_significance,
    write_table,
)
from reproduction.report.cells import Filled
from reproduction.report.collect import COLUMNS, metric_rows, write_csv
from reproduction.report.grid import CellKey
from reproduction.report.keeping import fuller
from reproduction.report.reference import read_reference
from reproduction.report.render import wide
from reproduction.report.statistics import test_rows
from reproduction.system import orphans


def known_tables(scale: str | None = None) -> list[str]:
    """The tables that are filled from runs: the folders of experiments/ that have a grid, or those with cells at a
    scale.
    """
    names = sorted(path.parent.name for path in EXPERIMENTS.glob("*/grid.yaml"))
    return names if scale is None else [name for name in names if load_grid(EXPERIMENTS / name).is_at(scale)]


def chosen_tables(asked: str | Sequence[str], scale: str) -> list[str]:
    """The tables that a config's ``table`` names: one, a list of them, or all that have cells at the scale.

    Raises `ConfigError` for a table that is none.
    """
    known = known_tables()
    if asked == ALL:
        return known_tables(scale)
    names = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"there is no table={unknown[0]}; the tables are {', '.join(known)} ({ALL} is all of them)")
    return list(dict.fromkeys(names))


def chosen_names(asked: str | Sequence[str] | None, known: Iterable[str], *, what: str) -> list[str]:
    """What a config's ``experiments`` or ``methods`` names: one, a list of them, or, where it is None, all.

    Raises `ConfigError` for a name that is none of the ``known``; ``what`` is the key's own name.
    """
    known = list(dict.fromkeys(known))
    if asked is None:
        return known
    names = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"{what}={unknown[0]} is in none of the tables asked for; there are {', '.join(known)}")
    return names


def _seeds(asked: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if asked is None:
        return None
    seeds = [asked] if isinstance(asked, int) else asked
    if isinstance(seeds, str) or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise ConfigError(f"seeds={asked} are no seeds: give whole numbers from 0, such as seeds=[0,1,2]")
    return tuple(seeds)


def forwarded(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The overrides of configs/train.yaml for every cell of a request: keys that both have, and ``overrides``."""
    keys = ("data_root", "results_dir", "allow_code_execution", "allow_network_unconfined")
    return (*(override(key, config[key]) for key in keys if config.get(key) is not None), *config["overrides"])


@dataclasses.dataclass(frozen=True)
class Plan:
    """(experiment, method, seed) → cell. Two keys may share a run: an untuned base is one for all its tasks."""

    cells: Mapping[CellKey, Cell]

    @property
    def runs(self) -> dict[CellKey, str]:
        """Each key's run folder, whose name holds the digest of the config."""
        return {key: cell.run.name for key, cell in self.cells.items()}

    @property
    def evaluations(self) -> dict[tuple[str, str], str]:
        """(benchmark, protocol name) → name of the evaluation's folder, the same in every cell of the table; of each
        benchmark in the order in which the cells have them, so its first default stands first.

        Raises `ConfigError` where two cells would evaluate one benchmark under different protocols of one name.
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

    def restricted(self, *, experiments: Collection[str], methods: Collection[str]) -> list[Cell]:
        """The cells of these experiments and methods."""
        return [cell for (e, m, _), cell in self.cells.items() if e in experiments and m in methods]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A table at a scale, and what every cell of it is composed with.

    ``overrides`` are of configs/train.yaml, and ``changes`` those among them that change what is computed; ``seeds``
    None takes the table's own, ``benchmarks`` None all of its columns, ``fewer`` is as in `Grid`, ``protocol`` as in
    configs/eval.
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
        """One for each table of the resolved configs/report.yaml or table.yaml, whose other keys are train.yaml's too.

        Raises `ConfigError` for a table that is none.
        """
        protocol, benchmarks = config["protocol"], config["benchmarks"]
        if benchmarks is not None:
            benchmarks = (benchmarks,) if isinstance(benchmarks, str) else tuple(benchmarks)
        return [
            cls(
                table=table,
                scale=config["scale"],
                seeds=_seeds(config["seeds"]),
                benchmarks=benchmarks,
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
        """Where the table's tests of significance go."""
        return self.results / "significance" / f"{self.table}.csv"

    def grid(self) -> Grid:
        """The table's plan from experiments/<table>/ at this scale, with the seeds and the benchmarks asked for, and a
        note on changed settings.
        """
        grid = load_grid(EXPERIMENTS / self.table).at(self.scale).showing(self.benchmarks, self.scale)
        told = (f"Not the table's own settings: every cell has {', '.join(self.changes)}.",) if self.changes else ()
        notes = (*grid.notes, *told)
        return dataclasses.replace(grid, seeds=self.seeds or grid.seeds, fewer=self.fewer, notes=notes)

    def plan(self) -> Plan:
        """Every cell composed, so that a bad config is refused before the first is run."""
        return Plan({key: _compose(job) for key, job in self.jobs().items()})

    def jobs(self) -> dict[CellKey, tuple[CellKey, str, tuple[str, ...]]]:
        """What `compose_cell` is asked for, cell by cell: the key, the scale, the overrides."""
        grid = self.grid()
        return {key: (key, self.scale, (*self.overrides, *self._evaluations(grid, key))) for key in grid.cells()}

    def _evaluations(self, grid: Grid, key: CellKey) -> list[str]:
        """What a cell is evaluated on, and how, as overrides."""
        experiment, _, seed = key
        asked = [override("protocol", self._protocols(grid, experiment))]
        if self.benchmarks is not None or self.fewer:
            asked.append(override("eval", grid.benchmarks(experiment, self.scale, seed=seed)))
        return asked

    def _protocols(self, grid: Grid, experiment: str) -> list[str]:
        """What was asked for, and what the columns of an experiment name beside it."""
        asked = [self.protocol] if isinstance(self.protocol, str) else list(self.protocol)
        columns = [
            column
            for column in grid.columns_at(self.scale)
            if any(grid.experiment(column, base) == experiment for base in grid.bases)
        ]
        named = {name for column in columns for name in column.protocols_at(self.scale)} - {None}
        return list(dict.fromkeys([*asked, *sorted(named)]))

    def gather(self, plan: Plan) -> Filled:
        """The scores of exactly the planned runs and evaluations; nothing of another config is taken for them."""
        runs = self.results / "runs"
        return gather(
            self.grid(),
            runs,
            scale=self.scale,
            expected=plan.runs,
            evaluations=plan.evaluations,
            flags=shlex.join(self._flags),
        )

    @property
    def _flags(self) -> list[str]:
        """What a command line needs to ask for the same cells."""
        flags = [] if self.protocol == DEFAULT else [override("protocol", self.protocol)]
        if self.benchmarks is not None:
            flags.append(override("benchmarks", self.benchmarks))
        if self.changes:
            flags.append(override("overrides", self.changes))
        return flags + [
            flag
            for flag in self.overrides
            if flag.startswith(("data_root=", "results_dir=")) and flag != "results_dir=results"
        ]


def plan_all(requests: Sequence[Request], *, gpus: int | None = None) -> list[tuple[Request, Plan]]:
    """The requests with their plans, composed by several processes: each cell takes a while, and they are many.

    Raises as `Request.plan`.
    """
    jobs = [request.jobs() for request in requests]
    different = list(dict.fromkeys(job for each in jobs for job in each.values()))
    forks = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(mp_context=forks, initializer=_composes, initargs=(os.getpid(),)) as pool:
        cells = dict(zip(different, pool.map(functools.partial(_compose, gpus=gpus), different), strict=True))
    plans = (Plan({key: cells[job] for key, job in each.items()}) for each in jobs)
    return list(zip(requests, plans, strict=True))


def _composes(parent: int) -> None:
    orphans.end_with(parent)
    gc.disable()  # it would walk through every imported module each time, and such a process is gone in seconds


def chosen_cells(planned: Sequence[tuple[Request, Plan]], config: Mapping[str, Any]) -> dict[str, list[Cell]]:
    """Table → its cells of the experiments and methods that a config names. Raises `ConfigError` as `chosen_names`."""
    keys = [key for _, plan in planned for key in plan.cells]
    experiments = chosen_names(config["experiments"], (key[0] for key in keys), what="experiments")
    methods = chosen_names(config["methods"], (key[1] for key in keys), what="methods")
    return {request.table: plan.restricted(experiments=experiments, methods=methods) for request, plan in planned}


def _compose(job: tuple[CellKey, str, tuple[str, ...]], gpus: int | None = None) -> Cell:
    (experiment, method, seed), scale, overrides = job
    return compose_cell(experiment, method, scale=scale, seed=seed, overrides=overrides, gpus=gpus)


def report_tables(planned: Sequence[tuple[Request, Plan]], *, committed: Path = RESULTS) -> None:
    """Rebuild metrics.csv, and each table's files and tests of significance, from the records; print the tables.

    A table with gaps, its tests and metrics.csv leave files that say more as they are. The reference is of the results
    that are ``committed``. Raises `NotComplete`, after printing all, where a cell is missing and that was not allowed.
    """
    first, lacking, gaps = planned[0][0], [], False
    reference = read_reference(committed, first.scale)
    for request, plan in planned:
        filled = request.gather(plan)
        table = lay_out(filled, reference)
        Console().print(console(table))
        lacking += _lacking(request, filled)
        gaps = gaps or bool(table.missing)
        if not (table.missing and _stay(_files(request, table))):
            write_significance(filled, request.tests, comparisons=table.comparisons)
            print("written: " + ", ".join(map(str, write_table(table, request.results / "tables"))))
    metrics, rows = first.results / "metrics.csv", metric_rows(first.results / "runs", scale=first.scale)
    if not (gaps and _stay({metrics: rows})):
        write_csv(metrics, COLUMNS, rows)
    _complain(lacking)


def report_statistics(planned: Sequence[tuple[Request, Plan]]) -> None:
    """Rebuild each table's tests of significance from the records, and print them.

    Gaps leave files that say more as they are. Raises `NotComplete`, after printing all, where a cell is missing and
    that was not allowed.
    """
    lacking = []
    for request, plan in planned:
        filled = request.gather(plan)
        table = lay_out(filled)
        print(summary(filled, table.comparisons))
        lacking += _lacking(request, filled)
        if not (table.missing and _stay(_files(request, table))):
            write_significance(filled, request.tests, comparisons=table.comparisons)
            print(f"written: {request.tests}")
    _complain(lacking)


def _files(request: Request, table: Table) -> dict[Path, list[dict[str, Any]]]:
    """The CSV files of a table and of its tests, with the rows that they would get."""
    return {
        request.results / "tables" / f"{request.table}.csv": wide(table)[1],
        request.tests: test_rows(table.filled, table.comparisons),
    }


def _stay(files: Mapping[Path, list[dict[str, Any]]]) -> bool:
    """Whether one of the files says more than the rows that it would get, so that all of them stay; prints which."""
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


def _complain(lacking: Sequence[str]) -> None:
    if lacking:
        raise NotComplete("\n".join(lacking))
