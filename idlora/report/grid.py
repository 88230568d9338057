"""experiments/<table>/: which cells a table has, how its columns read at each scale, and the paper's numbers."""

import csv
from collections.abc import Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

PAPER, EMBEDDED = "paper", "embedded"
UNTUNED = "base"
"""The method that trains nothing: one run per base model, whatever the experiment and the seed."""

CellKey = tuple[str, str, int]
"""(experiment, method, seed)"""


class GridError(ValueError):
    """A grid, or the runs found for it, cannot make a table; the message says which part and the way out."""


def kind_of(scale: str) -> str:
    """ "paper" for the paper's own scale, "embedded" for every other: only the first may be set against its numbers."""
    return PAPER if scale == PAPER else EMBEDDED


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: where its items come from, and its heading by kind of scale.

    ``experiment`` may hold ``{base}``. A column ``beside`` is no column of the paper's table: it is tested outside the
    Holm family and takes neither bold nor †. ``flags`` are what the command that fills a cell needs beside the usual.
    """

    id: str
    experiment: str
    benchmark: str
    metric: str
    heading: dict[str, str]
    beside: bool = False
    flags: str = ""
    scales: tuple[str, ...] = (PAPER, EMBEDDED)


@dataclass(frozen=True)
class PaperValue:
    """One number that the paper prints, with its † and where it stands."""

    value: float
    dagger: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table's plan, as grid.yaml and paper.csv say it. ``paper`` maps (base, method, column id) → `PaperValue`."""

    table: str
    title: str
    reference: str
    subject: str
    alpha: float
    seeds: tuple[int, ...]
    experiments: tuple[str, ...]
    methods: tuple[str, ...]
    labels: dict[str, str]
    bases: dict[str, dict[str, dict[str, str]]]
    columns: tuple[Column, ...]
    paper: dict[tuple[str, str, str], PaperValue]

    def __post_init__(self) -> None:
        for role in ("reference", "subject"):
            if getattr(self, role) not in self.methods:
                raise GridError(f"{role} is {getattr(self, role)!r}, which is none of the methods {list(self.methods)}")
        if unnamed := [method for method in self.methods if method not in self.labels]:
            raise GridError(f"labels has no word for {unnamed}")
        for column in self.columns:
            for base in self.bases:
                if self.experiment(column, base) not in self.experiments:
                    raise GridError(
                        f"column {column.id!r} needs the experiment {self.experiment(column, base)!r}, "
                        f"which is none of {list(self.experiments)}"
                    )
            if without := [kind for kind in column.scales if kind not in column.heading]:
                raise GridError(f"column {column.id!r} has no heading for {without}")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise GridError(f"seeds is {list(self.seeds)}; name each once, and at least one")

    def cells(self) -> list[CellKey]:
        """Every (experiment, method, seed) that the table asks for, in the order of the file."""
        return [(e, m, s) for e in self.experiments for m in self.methods for s in self.seeds]

    def benchmarks(self, experiment: str, scale: str) -> list[str]:
        """What a cell of this experiment is evaluated on at this scale, in the order of the columns."""
        names = [
            column.benchmark
            for column in self.columns_at(scale)
            for base in self.bases
            if self.experiment(column, base) == experiment
        ]
        return list(dict.fromkeys(names))

    def columns_at(self, scale: str) -> list[Column]:
        return [column for column in self.columns if kind_of(scale) in column.scales]

    @staticmethod
    def experiment(column: Column, base: str) -> str:
        return column.experiment.format(base=base)


def load_grid(folder: Path) -> Grid:
    """Read ``folder``/grid.yaml and ``folder``/paper.csv.

    Raises `GridError` for a missing file, an unknown or missing key, or parts that do not fit together.
    """
    path = Path(folder) / "grid.yaml"
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
        numbers = (Path(folder) / "paper.csv").read_text(encoding="utf-8")
    except OSError as error:
        raise GridError(f"a table needs {error.filename}, which cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise GridError(f"{path} is not YAML: {error}") from error
    _only(plan, {field.name for field in fields(Grid)} - {"paper"}, path)
    columns = []
    for column in plan["columns"]:
        _only(column, {field.name for field in fields(Column)}, path, optional={"beside", "flags", "scales"})
        columns.append(Column(**column | {"scales": tuple(column.get("scales", (PAPER, EMBEDDED)))}))
    lists = {name: tuple(plan[name]) for name in ("seeds", "experiments", "methods")}
    return Grid(**plan | lists | {"columns": tuple(columns), "paper": _paper(numbers)})


def _paper(text: str) -> dict[tuple[str, str, str], PaperValue]:
    return {
        (row["base"], row["method"], row["column"]): PaperValue(
            float(row["value"]), row["dagger"] == "yes", row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    }


def _only(part: dict[str, Any], names: set[str], path: Path, *, optional: Set[str] = frozenset()) -> None:
    if unknown := sorted(set(part) - names):
        raise GridError(f"{path} has the unknown key {', '.join(unknown)}; the keys are {', '.join(sorted(names))}")
    if missing := sorted(names - set(part) - optional):
        raise GridError(f"{path} lacks {', '.join(missing)}")
