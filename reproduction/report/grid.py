"""experiments/<table>/: which cells a table has, how its columns read at each scale, and the paper's numbers."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from reproduction.report.documents import read_csv
from reproduction.report.measures import PERCENT, Measure, measure_of

PAPER, SMALL, EMBEDDED = KINDS = "paper", "small", "embedded"
UNTUNED = "base"
"""The method that trains nothing: one run per base model, whatever the experiment and the seed."""

CellKey = tuple[str, str, int]
"""(experiment, method, seed)"""


class GridError(ValueError):
    """A grid, or the runs found for it, cannot make a table; the message says which part and the way out."""


def kind_of(scale: str) -> str:
    """The kind of a scale: "paper" for the paper's models, which alone may be set against its numbers, "small" for
    other models on its tasks, "embedded" for all others.
    """
    return scale if scale in (PAPER, SMALL) else EMBEDDED


def tasks_of(scale: str) -> str:
    """Whose tasks a scale has: "paper" for the paper's, "embedded" for the generated ones."""
    return EMBEDDED if kind_of(scale) == EMBEDDED else PAPER


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Args:
        id: its name in CSV files.
        experiment: of configs/experiment; may hold ``{base}``.
        benchmark: of configs/eval.
        metric: a score, or several of which the first counts that the evaluation gives.
        heading: by whose tasks they are (`tasks_of`).
        protocol: the one that the column shows, for all scales or by kind of scale or of tasks; of a list the column
            shows the mean of their means. None is the benchmark's first default.
        beside: the paper's table has no such column: it stands outside the Holm family, without bold and †.
        note: printed below the table.
        flags: what the command that fills a cell needs.
        scales: the kinds of scale that have the column.
        chance: what guessing scores, a fraction such as 0.25 with four choices.
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
        """The score without any skill: chance, or zero where nothing can be guessed; None for a loss or ``beside``."""
        return None if self.beside or self.measure.lower_is_better else self.chance or 0.0

    def protocols_at(self, scale: str) -> list[str | None]:
        """The names of the protocols that the column shows at this scale; None is the benchmark's first default."""
        found = self.protocol
        if isinstance(found, Mapping):
            found = found.get(kind_of(scale), found.get(tasks_of(scale)))
        return found if isinstance(found, list) else [found]

    def heading_at(self, scale: str) -> str:
        return self.heading[tasks_of(scale)]


@dataclass(frozen=True)
class PaperValue:
    """One number that the paper prints, with its † and where it stands."""

    value: float
    dagger: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table's plan, as grid.yaml and paper.csv have it.

    Args:
        table, title: its folder's name, and its heading.
        reference: the method that all others are tested against, or a mapping method → its own reference (the others
            are then not tested).
        alpha: of the tests behind †.
        seeds: of every cell that ``fewer`` does not restrict.
        experiments, methods: of the configs, in the table's order.
        labels: method → its label, for all scales or by kind of scale; a kind without a label has no such row.
        bases: key → ``model`` and ``label`` by kind of scale (a kind without a model has no such rows), ``block``, how
            the base is trained where it stands in several blocks, and ``like``, the base whose numbers the paper has.
        columns: of the table.
        paper: (base, method, column id) → `PaperValue`.
        subject: the method whose orderings are shown, where there is one reference for all.
        reference_instead: method → another reference than the one that all have.
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
        """Whether the table has any cell at the scale."""
        return any(kind_of(scale) in words["model"] for words in self.bases.values())

    def at(self, scale: str) -> "Grid":
        """The grid of one scale: without the bases that its kind has no model for, the experiments that they alone
        need, and the methods that its kind has no label for.

        Raises `GridError` where no base is left, a method has no reference at the scale, or the table no subject.
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
        """The grid with the columns of these benchmarks alone and the experiments that they need; None is all of them.

        A note names what was left out of those that the scale has. Raises `GridError` for a benchmark of no column.
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
        """Every (experiment, method, seed) that the table asks for, in the order of the file."""
        needed = {
            (self.experiment(column, base), method, seed)
            for column, base, method in itertools.product(self.columns, self.bases, self.methods)
            for seed in self.seeds_of(base, method, column.benchmark)
        }
        keys = itertools.product(self.experiments, self.methods, self.seeds)
        return [key for key in keys if key in needed]

    def seeds_of(self, base: str, method: str, benchmark: str) -> tuple[int, ...]:
        """The seeds that a row has of a benchmark."""
        return seeds_left(self.seeds, self.fewer, base, method, benchmark)

    def benchmarks(self, experiment: str, scale: str, *, seed: int | None = None) -> list[str]:
        """What a cell of this experiment (and seed) is evaluated on at this scale, in the order of the columns."""
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
        """How a base's block is trained at this scale, where it has several; else empty."""
        return self.bases[base].get("block", {}).get(kind_of(scale), "")

    def label(self, method: str, scale: str) -> str:
        return str(_by_kind(self.labels[method], scale))

    def reference_of(self, method: str) -> str | None:
        """The method that this one is tested against, or None for one that is not tested."""
        if isinstance(self.reference, Mapping):
            return self.reference.get(method)
        return None if method == self.reference else self.reference_instead.get(method, self.reference)

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of methods whose orderings are shown: subject and other, or each with its own reference."""
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
    """Those of the ``seeds`` that what has all these names, a base's before a method's before a benchmark's, has."""
    keys = [*names, *map("/".join, itertools.combinations(names, 2))]
    return tuple(seed for seed in seeds if all(seed in fewer.get(key, seeds) for key in keys))


def load_grid(folder: Path) -> Grid:
    """Read ``folder``/grid.yaml, the file that it names under ``include`` (whose keys it overrides), and
    ``folder``/paper.csv where there is one.

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
