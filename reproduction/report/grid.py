"""Plans of the tables in experiments/<table>/: cells, columns at each scale, and the paper's numbers."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from reproduction.report.documents import read_csv
from reproduction.report.measures import PERCENT, Measure, measure_of

PAPER, SMALL, EMBEDDED = KINDS = "paper", "small", "embedded"
TINY = "tiny"
"""The embedded scale of the committed reference."""

UNTUNED = "base"
"""The method that trains nothing: one run per base model for all experiments and seeds."""

CellKey = tuple[str, str, int]
"""(experiment, method, seed)."""


class GridError(ValueError):
    """A grid, or the runs found for it, cannot make a table; the message names the part and the remedy."""


def kind_of(scale: str) -> str:
    """Return the kind of a scale: "paper" for the paper's models, the only ones comparable with its numbers, "small"
    for other models on its tasks, "embedded" for all others.
    """
    return scale if scale in (PAPER, SMALL) else EMBEDDED


def tasks_of(scale: str) -> str:
    """Return "paper" for scales with the paper's tasks, "embedded" for those with generated tasks."""
    return EMBEDDED if kind_of(scale) == EMBEDDED else PAPER


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Args:
        id: its name in CSV files.
        experiment: name in configs/experiment; may hold ``{base}``.
        benchmark: name in configs/eval.
        metric: a score, or several, of which the first that the evaluation has counts.
        heading: by kind of tasks (`tasks_of`).
        protocol: the protocol shown, for all scales or by kind of scale or of tasks; for a list the column shows the
            mean of their means. None is the benchmark's first default.
        beside: True for a column absent from the paper's table: outside the Holm family, without bold and †.
        note: text printed below the table.
        flags: options of the command that fills a cell.
        scales: kinds of scale that have the column.
        chance: expected score of guessing, a fraction such as 0.25 with four choices.
    """

    id: str
    experiment: str
    benchmark: str
    metric: str | list[str]
    heading: dict[str, str]
    protocol: str | list[str] | dict[str, str] | None = None
    beside: bool = False
    note: str = ""
    flags: str = ""
    scales: Sequence[str] = KINDS
    chance: float | None = None

    @property
    def measure(self) -> Measure:
        return measure_of(self.metric if isinstance(self.metric, str) else self.metric[0])

    @property
    def floor(self) -> float | None:
        """The score without any skill: chance, or zero if guessing is impossible; None for a loss or ``beside``."""
        return None if self.beside or self.measure.lower_is_better else self.chance or 0.0

    def protocols_at(self, scale: str) -> list[str | None]:
        """Return the names of the protocols shown at this scale; None is the benchmark's first default."""
        found = self.protocol
        if isinstance(found, Mapping):
            found = found.get(kind_of(scale), found.get(tasks_of(scale)))
        return found if isinstance(found, list) else [found]

    def heading_at(self, scale: str) -> str:
        return self.heading[tasks_of(scale)]


@dataclass(frozen=True)
class PaperValue:
    """One number printed in the paper, with its † and its place."""

    value: float
    dagger: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table's plan, from grid.yaml and paper.csv.

    Args:
        table, title: its folder's name, and its heading.
        reference: the method that all others are tested against, or a mapping method → its own reference (methods
            outside the mapping are not tested).
        alpha: level of the tests behind †.
        seeds: seeds of every cell without an entry in ``fewer``.
        experiments, methods: names of configs, in the table's order.
        labels: method → its label, for all scales or by kind of scale; a kind without a label has no such row.
        bases: key → ``model`` and ``label`` by kind of scale (a kind without a model has no such rows), ``block``, the
            training of the base if it stands in several blocks, and ``like``, the base whose paper numbers apply.
        columns: of the table.
        paper: (base, method, column id) → `PaperValue`.
        subject: the method whose orderings are shown, if there is one reference for all.
        reference_instead: method → its reference in place of the common one.
        notes: sentences printed below the table.
        fewer: a base, a method or a benchmark, or two of them in this order as "<base>/<method>" → its seeds, the first
            ones of ``seeds``.
    """

    table: str
    title: str
    reference: str | dict[str, str]
    alpha: float
    seeds: tuple[int, ...]
    experiments: tuple[str, ...]
    methods: tuple[str, ...]
    labels: dict[str, str | dict[str, str]]
    bases: dict[str, dict[str, Any]]
    columns: tuple[Column, ...]
    paper: dict[tuple[str, str, str], PaperValue]
    subject: str | None = None
    reference_instead: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fewer: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.reference, Mapping):
            named = [("reference", name) for pair in self.reference.items() for name in pair]
        else:
            named = [("reference", self.reference), ("subject", self.subject)]
        named += [("reference_instead", name) for pair in self.reference_instead.items() for name in pair]
        for role, name in named:
            if name not in self.methods:
                raise GridError(f"{role} is {name!r}, which is none of the methods {list(self.methods)}")
        if unnamed := [method for method in self.methods if not any(self._has(method, kind) for kind in KINDS)]:
            raise GridError(f"labels has no word for {unnamed}")
        by_kind = [
            ("bases", base.get(part, {})) for base in self.bases.values() for part in ("model", "label", "block")
        ]
        by_kind += [("labels", words) for words in self.labels.values() if isinstance(words, Mapping)]
        for key, words in by_kind:
            if unknown := sorted(words.keys() - set(KINDS)):
                raise GridError(f"{key} has the unknown kind of scale {unknown[0]!r}; they are {', '.join(KINDS)}")
        for column in self.columns:
            if lacking := self._experiments(self.bases, [column]) - set(self.experiments):
                raise GridError(f"column {column.id!r} needs {sorted(lacking)}, not in experiments {self.experiments}")
            if without := [kind for kind in column.scales if tasks_of(kind) not in column.heading]:
                raise GridError(f"column {column.id!r} has no heading for {without}")
            if column.chance is not None and (column.measure is not PERCENT or not 0 < column.chance < 1):
                raise GridError(f"column {column.id!r} has chance={column.chance}, which is no fraction of a score")
        groups = [self.bases, self.methods, dict.fromkeys(column.benchmark for column in self.columns)]
        pairs = {"/".join(pair) for two in itertools.combinations(groups, 2) for pair in itertools.product(*two)}
        for name, some in self.fewer.items():
            if name not in pairs.union(*groups):
                raise GridError(
                    f"fewer names {name!r}, which is no base, method or benchmark of {self.table}, nor two of them as "
                    "<base>/<method>"
                )
            if len(some) >= len(self.seeds) or tuple(some) != self.seeds[: len(some)]:
                raise GridError(f"fewer gives {name} the seeds {list(some)}: name the first ones of {list(self.seeds)}")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise GridError(f"seeds is {list(self.seeds)}; name each once, and at least one")

    def is_at(self, scale: str) -> bool:
        """Return whether the table has any cell at the scale."""
        return any(kind_of(scale) in words["model"] for words in self.bases.values())

    def at(self, scale: str) -> "Grid":
        """Return the grid of one scale, without bases that have no model of its kind, experiments that only they need,
        and methods that have no label of its kind.

        Raises `GridError` if no base is left, a method has no reference at the scale, or the table no subject.
        """
        kind = kind_of(scale)
        if not self.is_at(scale):
            others = " or ".join(each for each in KINDS if self.is_at(each))
            raise GridError(
                f"{self.table} has no cells at scale={scale}: the models in its grid.yaml are for the kind of scale "
                f"{others}; ask for it at such a scale, or leave it out"
            )
        bases = {base: words for base, words in self.bases.items() if kind in words["model"]}
        lost = self._experiments(self.bases.keys() - bases.keys()) - self._experiments(bases)
        methods = tuple(method for method in self.methods if self._has(method, kind))

        def present(references: Mapping[str, str]) -> dict[str, str]:
            return {method: its for method, its in references.items() if method in methods}

        alike = [(base, words["like"]) for base, words in bases.items() if "like" in words]
        paper = {(base, *key[1:]): value for key, value in self.paper.items() for base, its in alike if its == key[0]}
        return replace(
            self,
            bases=bases,
            experiments=tuple(name for name in self.experiments if name not in lost),
            methods=methods,
            reference=present(self.reference) if isinstance(self.reference, Mapping) else self.reference,
            reference_instead=present(self.reference_instead),
            paper=self.paper | paper,
        )

    def showing(self, benchmarks: Sequence[str] | None, scale: str) -> "Grid":
        """Return the grid restricted to the columns of these benchmarks and their experiments; None keeps all.

        A note names the columns of the scale that were left out. Raises `GridError` for a benchmark without a column.
        """
        if benchmarks is None:
            return self
        known = dict.fromkeys(column.benchmark for column in self.columns_at(scale))
        if unknown := [name for name in benchmarks or ["[]"] if name not in known]:
            raise GridError(f"{self.table} shows nothing of benchmarks={unknown[0]}; it shows {', '.join(known)}")
        columns = tuple(column for column in self.columns if column.benchmark in benchmarks)
        needed = self._experiments(self.bases, columns)
        left_out = ", ".join(name for name in known if name not in benchmarks)
        return replace(
            self,
            columns=columns,
            experiments=tuple(name for name in self.experiments if name in needed),
            notes=(*self.notes, *([f"Not run for this table: {left_out}."] if left_out else [])),
        )

    def cells(self) -> list[CellKey]:
        """Return every (experiment, method, seed) of the table, in the order of the file."""
        needed = {
            (self.experiment(column, base), method, seed)
            for column, base, method in itertools.product(self.columns, self.bases, self.methods)
            for seed in self.seeds_of(base, method, column.benchmark)
        }
        keys = itertools.product(self.experiments, self.methods, self.seeds)
        return [key for key in keys if key in needed]

    def seeds_of(self, base: str, method: str, benchmark: str) -> tuple[int, ...]:
        """Return the seeds of a row for a benchmark."""
        return seeds_left(self.seeds, self.fewer, base, method, benchmark)

    def benchmarks(self, experiment: str, scale: str, *, seed: int | None = None) -> list[str]:
        """Return the benchmarks of a cell of this experiment (and seed) at this scale, in the order of the columns."""
        names = [
            column.benchmark
            for column, base in itertools.product(self.columns_at(scale), self.bases)
            if self.experiment(column, base) == experiment
            and (seed is None or seed in seeds_left(self.seeds, self.fewer, base, column.benchmark))
        ]
        return list(dict.fromkeys(names))

    def columns_at(self, scale: str) -> list[Column]:
        return [column for column in self.columns if kind_of(scale) in column.scales]

    def block(self, base: str, scale: str) -> str:
        """Return how a base's block is trained at this scale if the base has several; else ""."""
        return self.bases[base].get("block", {}).get(kind_of(scale), "")

    def label(self, method: str, scale: str) -> str:
        return str(_by_kind(self.labels[method], scale))

    def reference_of(self, method: str) -> str | None:
        """Return the method that this one is tested against, None if it is not tested."""
        if isinstance(self.reference, Mapping):
            return self.reference.get(method)
        return None if method == self.reference else self.reference_instead.get(method, self.reference)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the pairs of methods whose orderings are shown: subject and other, or each with its own reference."""
        if isinstance(self.reference, Mapping):
            return list(self.reference.items())
        return [(self.subject, method) for method in self.methods if method != self.subject]

    def _has(self, method: str, kind: str) -> bool:
        return bool(_by_kind(self.labels.get(method), kind))

    def _experiments(self, bases: Iterable[str], columns: Iterable[Column] | None = None) -> set[str]:
        return {self.experiment(column, base) for column in columns or self.columns for base in bases}

    @staticmethod
    def experiment(column: Column, base: str) -> str:
        return column.experiment.format(base=base)


def seeds_left(seeds: tuple[int, ...], fewer: Mapping[str, tuple[int, ...]], *names: str) -> tuple[int, ...]:
    """Return the ``seeds`` that ``fewer`` leaves for all these names, in the order base, method, benchmark."""
    keys = [*names, *map("/".join, itertools.combinations(names, 2))]
    return tuple(seed for seed in seeds if all(seed in fewer.get(key, seeds) for key in keys))


def load_grid(folder: Path) -> Grid:
    """Read ``folder``/grid.yaml, the file that it names under ``include`` (whose keys it overrides), and
    ``folder``/paper.csv if there is one.

    Raises `GridError` for a missing file, an unknown or missing key, or parts that do not fit together.
    """
    path = Path(folder) / "grid.yaml"
    plan = _yaml(path)
    if "include" in plan:
        plan = _yaml(path.parent / plan.pop("include")) | plan
    lists = {name: tuple(plan.get(name, ())) for name in ("seeds", "experiments", "methods", "notes")}
    numbers = {
        (row["base"], row["method"], row["column"]): PaperValue(
            float(row["value"]), row["dagger"] == "yes", row["source"]
        )
        for row in read_csv(path.with_name("paper.csv"))
    }
    try:
        columns = tuple(Column(**column) for column in plan.get("columns", ()))
        return Grid(**plan | lists | {"columns": columns, "paper": numbers})
    except TypeError as error:  # an unknown or a missing key
        raise GridError(f"{path}: {error}") from error


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GridError(f"a table needs {error.filename}, which cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise GridError(f"{path} is not YAML: {error}") from error


def _by_kind(value: str | dict[str, str] | None, scale: str) -> str | None:
    return value.get(kind_of(scale)) if isinstance(value, Mapping) else value
