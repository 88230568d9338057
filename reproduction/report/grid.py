"""experiments/<table>/: which cells a table has, how its columns read at each scale, and the paper's numbers."""

import csv
import itertools
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from reproduction.report.measures import PERCENT, Measure, measure_of

PAPER, SMALL, EMBEDDED = KINDS = "paper", "small", "embedded"
UNTUNED = "base"
"""The method that trains nothing: one run per base model, whatever the experiment and the seed."""

CellKey = tuple[str, str, int]
"""(experiment, method, seed)"""


class GridError(ValueError):
    """A grid, or the runs found for it, cannot make a table; the message says which part and the way out."""


def kind_of(scale: str) -> str:
    """Whose models a scale has: "paper" for the paper's own, which alone may be set against its numbers, "small" for
    others on its tasks, "embedded" for all others.
    """
    return scale if scale in (PAPER, SMALL) else EMBEDDED


def tasks_of(scale: str) -> str:
    """Whose tasks a scale has: "paper" for the paper's, "embedded" for the generated ones."""
    return EMBEDDED if kind_of(scale) == EMBEDDED else PAPER


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: where its items come from, and its heading by whose tasks they are (`tasks_of`).

    ``experiment`` may hold ``{base}``. ``metric`` is the name of a score, or names of which the first counts that the
    evaluation gives. ``protocol`` names the one that the column shows, for all scales or by whose tasks they are; None
    is the benchmark's first default. Of several (a list, for all scales or by kind of scale) the column shows the mean
    of their means. A column ``beside`` is no column of the paper's table: it is tested outside the
    Holm family and takes neither bold nor †; ``note`` says what it is. ``flags`` are what the command that fills a cell
    needs beside the usual. ``scales`` are the kinds of scale (`kind_of`) that have the column. Columns of one measure
    form a group, and a Holm family. ``chance`` is what guessing scores, a fraction: one over the number of choices.
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
    scales: tuple[str, ...] = (PAPER, SMALL, EMBEDDED)
    chance: float | None = None

    @property
    def measure(self) -> Measure:
        return measure_of(self.metric if isinstance(self.metric, str) else self.metric[0])

    @property
    def floor(self) -> float | None:
        """What takes no skill, a fraction: chance, or zero where nothing can be guessed. A loss has none, nor has a
        column beside the table, on which nobody is called ahead anyway.
        """
        return None if self.beside or self.measure.lower_is_better else self.chance or 0.0

    def protocols_at(self, scale: str) -> list[str | None]:
        """The names of the protocols that the column shows at this scale; None is the benchmark's first default."""
        found = self.protocol
        if isinstance(found, Mapping):
            found = found.get(kind_of(scale), found.get(tasks_of(scale)))
        return found if isinstance(found, list) else [found]

    def heading_at(self, scale: str) -> str:
        """The column's heading at a scale that has it."""
        return self.heading[tasks_of(scale)]


@dataclass(frozen=True)
class PaperValue:
    """One number that the paper prints, with its † and where it stands."""

    value: float
    dagger: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table's plan, as grid.yaml and paper.csv say it. ``paper`` maps (base, method, column id) → `PaperValue`.

    ``reference`` is the method that all others are tested against, or maps a method to its own (the others are then
    not tested); ``reference_instead`` maps a method to another than the one that all have. ``subject``, given where
    there is one reference for all, is the method whose orderings are shown. A method's label is for all scales or by
    kind of scale, as a base's ``model`` and ``label`` are: a kind that it lacks has no such rows, see `at`. Of a base
    that stands in several blocks, each trained in its way, ``block`` says by kind of scale how, and ``like`` names the
    base whose numbers the paper has. ``notes`` are sentences to print below the table. ``fewer`` maps a base, a
    method or a benchmark, or two of them in this order as "<base>/<method>", to those of the ``seeds`` that it has
    where it has not all: the first ones, so that any two cells have some in common, or none.
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
        for kind in KINDS:
            if unnamed := [
                base for base, words in self.bases.items() if (kind in words["model"]) != (kind in words["label"])
            ]:
                raise GridError(f"bases has a model or a label alone for {unnamed} ({kind})")
        if unnamed := [method for method in self.methods if not any(self._has(method, kind) for kind in KINDS)]:
            raise GridError(f"labels has no word for {unnamed}")
        alike = [words["like"] for words in self.bases.values() if "like" in words]
        if unlike := [base for base in alike if base not in self.bases]:
            raise GridError(f"bases has one that is like {unlike[0]!r}, which is none of {list(self.bases)}")
        named_kinds = [("bases", words.get(part, {})) for words in self.bases.values() for part in ("model", "block")]
        named_kinds += [("labels", words) for words in self.labels.values() if isinstance(words, Mapping)]
        for key, words in named_kinds:
            if unknown := sorted(words.keys() - set(KINDS)):
                raise GridError(f"{key} has the unknown kind of scale {unknown[0]!r}; they are {', '.join(KINDS)}")
        for column in self.columns:
            for base in self.bases:
                if self.experiment(column, base) not in self.experiments:
                    raise GridError(
                        f"column {column.id!r} needs the experiment {self.experiment(column, base)!r}, "
                        f"which is none of {list(self.experiments)}"
                    )
            if without := [kind for kind in column.scales if tasks_of(kind) not in column.heading]:
                raise GridError(f"column {column.id!r} has no heading for {without}")
            if column.chance is not None and (column.measure is not PERCENT or not 0 < column.chance < 1):
                raise GridError(
                    f"column {column.id!r} has chance={column.chance}; of a score it is a fraction between 0 and 1, "
                    "such as 0.25 with four choices, and a loss has none"
                )
        for scale in (PAPER, EMBEDDED):
            for benchmark in {column.benchmark for column in self.columns_at(scale)}:
                of_benchmark = [each for each in self.columns_at(scale) if each.benchmark == benchmark]
                asked = {name for each in of_benchmark for name in each.protocols_at(scale)}
                if None in asked and len(asked) > 1:
                    raise GridError(
                        f"of the {benchmark} columns some name a protocol and some do not ({scale}): name every one"
                    )
        groups = [self.bases, self.methods, dict.fromkeys(column.benchmark for column in self.columns)]
        pairs = {"/".join(pair) for two in itertools.combinations(groups, 2) for pair in itertools.product(*two)}
        for name, some in self.fewer.items():
            if name not in pairs.union(*groups):
                raise GridError(
                    f"fewer names {name!r}, which is no base, method or benchmark of {self.table}, nor two of them as "
                    "<base>/<method>"
                )
            if len(some) >= len(self.seeds) or tuple(some) != self.seeds[: len(some)]:
                raise GridError(
                    f"fewer gives {name} the seeds {list(some)}: name the first of {list(self.seeds)}, not all, or none"
                )
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
        bases = {base: words for base, words in self.bases.items() if kind in words["model"]}
        if not self.is_at(scale):
            others = " or ".join(each for each in KINDS if self.is_at(each))
            raise GridError(
                f"{self.table} has no cells at scale={scale}: the models in its grid.yaml are for the kind of scale "
                f"{others}; ask for it at such a scale, or leave it out"
            )
        lost = self._experiments(self.bases.keys() - bases.keys()) - self._experiments(bases.keys())
        methods = tuple(method for method in self.methods if self._has(method, kind))
        reference = self.reference
        if isinstance(reference, Mapping):
            reference = {method: its for method, its in reference.items() if method in methods}
        instead = {method: its for method, its in self.reference_instead.items() if method in methods}
        alike = [(base, words["like"]) for base, words in bases.items() if "like" in words]
        paper = {(base, *key[1:]): value for key, value in self.paper.items() for base, its in alike if its == key[0]}
        return replace(
            self,
            bases=bases,
            experiments=tuple(name for name in self.experiments if name not in lost),
            methods=methods,
            reference=reference,
            reference_instead=instead,
            paper=self.paper | paper,
        )

    def _has(self, method: str, kind: str) -> bool:
        return bool(_by_kind(self.labels.get(method), kind))

    def _experiments(self, bases: Iterable[str]) -> set[str]:
        return {self.experiment(column, base) for column in self.columns for base in bases}

    def showing(self, benchmarks: Sequence[str] | None, scale: str) -> "Grid":
        """The grid with the columns of these benchmarks alone and the experiments that they need; None is all of them.

        A note names what was left out of those that the scale has. Raises `GridError` for a benchmark of no column.
        """
        if benchmarks is None:
            return self
        known = dict.fromkeys(column.benchmark for column in self.columns_at(scale))
        if not benchmarks:
            raise GridError(f"benchmarks=[] leaves nothing of {self.table}; it shows {', '.join(known)}")
        if unknown := [name for name in benchmarks if name not in known]:
            raise GridError(f"{self.table} shows nothing of benchmarks={unknown[0]}; it shows {', '.join(known)}")
        columns = tuple(column for column in self.columns if column.benchmark in benchmarks)
        needed = {self.experiment(column, base) for column in columns for base in self.bases}
        left_out = ", ".join(name for name in known if name not in benchmarks)
        return replace(
            self,
            columns=columns,
            experiments=tuple(name for name in self.experiments if name in needed),
            notes=(*self.notes, *([f"Not run for this table: {left_out}."] if left_out else [])),
        )

    def cells(self) -> list[CellKey]:
        """Every (experiment, method, seed) that the table asks for, in the order of the file."""
        asked = {
            (self.experiment(column, base), method, seed)
            for column in self.columns
            for base in self.bases
            for method in self.methods
            for seed in self.seeds_of(base, method, column.benchmark)
        }
        keys = itertools.product(self.experiments, self.methods, self.seeds)
        return [key for key in keys if key in asked]

    def seeds_of(self, base: str, method: str, benchmark: str) -> tuple[int, ...]:
        """The seeds that a row has of a benchmark."""
        return seeds_left(self.seeds, self.fewer, base, method, benchmark)

    def benchmarks(self, experiment: str, scale: str, *, seed: int | None = None) -> list[str]:
        """What a cell of this experiment (and seed) is evaluated on at this scale, in the order of the columns."""
        names = [
            column.benchmark
            for column in self.columns_at(scale)
            for base in self.bases
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
        """What the table calls a method at this scale."""
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

    @staticmethod
    def experiment(column: Column, base: str) -> str:
        return column.experiment.format(base=base)


def seeds_left(seeds: tuple[int, ...], fewer: Mapping[str, tuple[int, ...]], *names: str) -> tuple[int, ...]:
    """Those of the ``seeds`` that what has all these names, a base's before a method's before a benchmark's, has."""
    told = [*names, *map("/".join, itertools.combinations(names, 2))]
    return tuple(seed for seed in seeds if all(seed in fewer.get(name, seeds) for name in told))


def load_grid(folder: Path) -> Grid:
    """Read ``folder``/grid.yaml, the file that it names under ``include``, and ``folder``/paper.csv where there is one.

    A key of the grid's own stands before the same key of the included file. Without paper.csv the paper has no such
    table, and ``paper`` is empty.

    Raises `GridError` for a missing file, an unknown or missing key, or parts that do not fit together.
    """
    path = Path(folder) / "grid.yaml"
    plan = _yaml(path)
    if "include" in plan:
        plan = _yaml(path.parent / plan.pop("include")) | plan
    numbers = Path(folder) / "paper.csv"
    _only(
        plan,
        {each.name for each in fields(Grid)} - {"paper", "fewer"},
        path,
        optional={"subject", "reference_instead", "notes"},
    )
    columns = []
    for column in plan["columns"]:
        optional = {"protocol", "beside", "note", "flags", "scales", "chance"}
        _only(column, {each.name for each in fields(Column)}, path, optional=optional)
        columns.append(Column(**column | {"scales": tuple(column.get("scales", Column.scales))}))
    lists = {name: tuple(plan.get(name, ())) for name in ("seeds", "experiments", "methods", "notes")}
    paper = _paper(numbers.read_text(encoding="utf-8")) if numbers.is_file() else {}
    return Grid(**plan | lists | {"columns": tuple(columns), "paper": paper})


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GridError(f"a table needs {error.filename}, which cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise GridError(f"{path} is not YAML: {error}") from error


def _by_kind(value: str | dict[str, str] | None, scale: str) -> str | None:
    return value.get(kind_of(scale)) if isinstance(value, Mapping) else value


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
