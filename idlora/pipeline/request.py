"""A table as a person asks for it: which one, at which scale; planned, and reported from what its runs left on disk."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from idlora.pipeline.compose import EXPERIMENTS, compose_cell
from idlora.pipeline.shell import NotComplete
from idlora.pipeline.table import Plan
from idlora.pipeline.typed import ConfigError
from idlora.report import (
    Grid,
    collect_metrics,
    console,
    gather,
    lay_out,
    load_grid,
    summary,
    write_significance,
    write_table,
)
from idlora.report.cells import Filled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A table at a scale, and what every cell of it is composed with.

    ``overrides`` are of configs/train.yaml. ``seeds`` None takes the table's own.
    """

    table: str
    scale: str
    seeds: tuple[int, ...] | None
    overrides: tuple[str, ...]
    results_dir: Path
    allow_missing: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Request":
        """From the resolved configs/report.yaml or configs/table.yaml, whose other keys are train.yaml's too."""
        forwarded = ("data_root", "results_dir", "allow_code_execution", "allow_network_unconfined")
        passed = [f"{key}={config[key]}" for key in forwarded if config.get(key) is not None]
        return cls(
            table=config["table"],
            scale=config["scale"],
            seeds=None if config["seeds"] is None else tuple(config["seeds"]),
            overrides=(*passed, *config["overrides"]),
            results_dir=Path(config["results_dir"]),
            allow_missing=config["allow_missing"],
        )

    @property
    def results(self) -> Path:
        """results/<scale>: runs/, tables/, significance/, metrics.csv."""
        return self.results_dir / self.scale

    def grid(self) -> Grid:
        """The table's plan from experiments/<table>/. Raises `ConfigError` for a table that is none."""
        known = sorted(path.parent.name for path in EXPERIMENTS.glob("*/paper.csv"))
        if self.table not in known:
            raise ConfigError(f"there is no table={self.table}; the tables are {', '.join(known)}")
        grid = load_grid(EXPERIMENTS / self.table)
        return grid if self.seeds is None else dataclasses.replace(grid, seeds=self.seeds)

    def plan(self) -> Plan:
        """Every cell composed, so that a bad config is refused before the first is run."""
        return Plan({
            (experiment, method, seed): compose_cell(
                experiment, method, scale=self.scale, seed=seed, overrides=self.overrides
            )
            for experiment, method, seed in self.grid().cells()
        })  # fmt: skip

    def gather(self, plan: Plan) -> Filled:
        """The scores of exactly the planned runs and evaluations; nothing of another config is taken for them."""
        runs = self.results / "runs"
        return gather(self.grid(), runs, scale=self.scale, expected=plan.runs, evaluations=plan.evaluations)


def report_table(request: Request, plan: Plan) -> None:
    """Rebuild metrics.csv and the table's files from the records, and print the table.

    Raises `NotComplete`, after printing, where a cell is missing and that was not allowed.
    """
    filled = request.gather(plan)
    collect_metrics(request.results / "runs", request.results / "metrics.csv", scale=request.scale)
    table = lay_out(filled)
    written = write_table(table, request.results / "tables")
    Console().print(console(table))
    print("written: " + ", ".join(map(str, written)))
    _complete(request, filled)


def report_statistics(request: Request, plan: Plan, *, quiet: bool = False) -> None:
    """Rebuild the table's tests of significance from the records, and print them unless ``quiet``.

    Raises `NotComplete`, after printing, where a cell is missing and that was not allowed.
    """
    filled = request.gather(plan)
    path = request.results / "significance" / f"{request.table}.csv"
    comparisons = write_significance(filled, path)
    if not quiet:
        print(summary(filled, comparisons))
        print(f"written: {path}")
        _complete(request, filled)


def _complete(request: Request, filled: Filled) -> None:
    if filled.missing and not request.allow_missing:
        raise NotComplete(
            f"{len(filled.missing)} cells of {request.table} are missing at scale={request.scale}: "
            f"`make {request.table} SCALE={request.scale}` fills them all (allow_missing=true accepts gaps)"
        )
