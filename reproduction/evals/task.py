"""What a benchmark is, a `Task`, and how it is asked and scored, a `Protocol`.

A benchmark is a file of `tasks/`, or any other file, that ends in `TASK = …`, an instance of a `Task`:

    from reproduction.data import DatasetSpec
    from reproduction.evals.task import Task

    class Capitals(Task):
        data = DatasetSpec("capitals", ("country", "capital"), {"test": "test"})    # <data_root>/capitals/test.jsonl
        defaults = {"max_new_tokens": 8}

        def instruction(self, row):
            return f"What is the capital of {row['country']}?", ""

        def read(self, row, raw):
            said = raw.strip()
            return {"parsed": said, "gold": row["capital"], "scores": {"exact": float(said == row["capital"])}}

    TASK = Capitals()

Beside it stands capitals.yaml in configs/eval, or in eval/ of a user's own configs, which names its protocols:

    capitals:
      benchmark: capitals
      file: capitals.py           # only where it is no file of `tasks/`; from the working directory on
      protocol_version: 1
      default: [greedy]
      protocols:
        greedy: {temperature: 0.0}

`eval=capitals` chooses it, with `--config-dir <own configs>` where it is there.
"""

import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from reproduction.data.catalogue import DatasetSpec
from reproduction.data.sources import load_rows
from reproduction.data.templates import Template
from reproduction.evals.items import Prompt, record
from reproduction.evals.sandbox import Permissions

TEMPLATE, RAW = "template", "raw"
"""How an item is put: as an instruction in the prompt template, or as text that a model continues."""


SCORINGS = ("generated", "likelihood", "loss")
DECODED = "generated"
"""The one way of scoring that decodes anything."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One evaluation's settings.

    Attributes:
        benchmark: a file of `reproduction.evals.tasks`, or what the one in `file` is called.
        protocol_version: raised whenever reading or scoring change, so that old scores are not taken for new. Answers
            outlive it: they are known by what was put to the model.
        name: what a person calls it, and no part of what is asked.
        file: of a benchmark of one's own.
        source: of the rows, where the benchmark has several.
        share: of the rows that are asked, where others of the source's are trained on, or where not all are asked.
        scoring: "generated" decodes an answer and reads it; "likelihood" takes the most probable of an item's choices,
            and "loss" measures that of its solution: neither decodes anything.
        max_new_tokens: most tokens of an answer; None where none is decoded.
        temperature: 0 is greedy decoding.
        top_p: nucleus; 1 samples from the whole distribution. Read only where the temperature is above 0.
        samples: answers per item.
        num_fewshot: worked examples before each question; fewer where they do not fit the model's context.
        layout: "template" puts an item as an instruction in the prompt template, "raw" as text that goes on.
        judge: a module of `reproduction.evals.judges`, where the benchmark needs one.
        limit: only the first items; None is all.
        seed: of sampling.
        execution_seconds: wall-clock limit of one program, where the benchmark runs programs.

    Raises:
        ValueError: a value out of range, a setting that the benchmark does not have, or no such benchmark.
    """

    benchmark: str
    protocol_version: int
    name: str = ""
    file: Path | None = None
    source: str | None = None
    share: float | None = None
    scoring: str = "generated"
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    num_fewshot: int = 0
    layout: str = TEMPLATE
    judge: str | None = None
    limit: int | None = None
    seed: int = 0
    execution_seconds: float = 3.0

    def __post_init__(self):
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring={self.scoring!r} is none of {', '.join(SCORINGS)}")
        if (self.max_new_tokens is None) != (self.scoring != DECODED):
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} does not go with scoring={self.scoring!r}: give a number where "
                "answers are generated, and null where they are not"
            )
        for name, least in (("max_new_tokens", 1), ("samples", 1), ("num_fewshot", 0), ("temperature", 0)):
            if not (getattr(self, name) is None or getattr(self, name) >= least):
                raise ValueError(f"{name}={getattr(self, name)} is too small: at least {least}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is no share of the probability: above 0 and at most 1")
        if not self.execution_seconds > 0:
            raise ValueError(f"execution_seconds={self.execution_seconds} leaves no time: give a positive number")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit} leaves no item: give at least 1, or null for all")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples={self.samples} of greedy decoding are all the same: set temperature above 0")
        if self.scoring != DECODED and self.samples > 1:
            raise ValueError(f"samples={self.samples} does not go with scoring={self.scoring!r}: nothing is sampled")
        if self.layout not in self.task.layouts:
            raise ValueError(
                f"{self.benchmark} has no layout {self.layout!r}: choose one of {', '.join(self.task.layouts)}"
            )
        self.task.check(self)

    @property
    def task(self) -> "Task":
        """The benchmark, with the rows of the protocol's source."""
        return load_task(self.benchmark, self.file).configured(self)

    @property
    def identity(self) -> dict[str, Any]:
        """What scores depend on beside model, prompts and data, as plain values: everything but the name."""
        own = {key: value for key, value in asdict(self).items() if key not in ("name", "file")}
        if self.source is None:
            del own["source"]
        if self.share is None and self.source is None:
            del own["share"]
        return own if self.file is None else own | {"file": file_digest(self.file)}

    def refuse(self, **unused) -> None:
        """For a benchmark's `check`: raises ValueError where a setting is not the only one that it has."""
        for name, value in unused.items():
            if getattr(self, name) != value:
                raise ValueError(f"{self.benchmark} has no {name}={getattr(self, name)!r}: leave it at {value!r}")


class Task:
    """A benchmark: where its rows come from, how they are put to a model, and how answers are read and scored.

    Attributes:
        data: its data set, whose split "test" is asked unless `rows` says otherwise; None where the protocol's source
            decides (see `configured`).
        shown: the split whose rows serve as worked examples.
        unit: what an item is called where scores are printed.
        layouts: those that it has.
        defaults: settings of a `Protocol` that hold where a config gives none.
        runs_code: whether scoring runs what the model wrote, which needs permission.
    """

    data: DatasetSpec | None = None
    shown: str = "train"
    unit: str = "item"
    layouts: tuple[str, ...] = (TEMPLATE,)
    defaults: ClassVar[Mapping[str, Any]] = {}
    runs_code: bool = False

    def configured(self, protocol: Protocol) -> "Task":
        """The benchmark as a protocol asks it: itself, where its rows do not depend on the protocol's ``source``.

        Raises ValueError for a source that it does not have.
        """
        if protocol.source is not None or protocol.share is not None:
            raise ValueError(f"{protocol.benchmark} has one source of rows: leave source and share at null")
        return self

    def check(self, protocol: Protocol) -> None:
        """Raises ValueError for settings that the benchmark does not have."""
        protocol.refuse(scoring="generated", num_fewshot=0, judge=None)

    def rows(self, *, root: Path | None, revisions: Mapping[str, str] | None = None) -> list[dict]:
        """The rows that are asked. Raises DataError, see `reproduction.data.load_rows`."""
        return load_rows(self.data, "test", root=root, revisions=revisions)

    @property
    def published_rows(self) -> int:
        """How many rows are asked by what the hub's card says; 0 where it is not known. For estimates of time."""
        return self.data.rows.get("test", 0)

    def examples(self, *, root: Path | None, revisions: Mapping[str, str] | None = None) -> list[dict]:
        """Rows to show as worked examples, best first. Raises DataError, see `reproduction.data.load_rows`."""
        return load_rows(self.data, self.shown, root=root, revisions=revisions)

    def instruction(self, row: dict) -> tuple[str, str]:
        """Instruction and input ("" is none) by which a row is put in the prompt template."""
        raise NotImplementedError(f"{type(self).__name__} has no instruction(row)")

    def raw(self, row: dict) -> str:
        """The text that a model continues, of a benchmark with the raw layout."""
        raise NotImplementedError(f"{type(self).__name__} has no raw layout")

    def header(self, row: dict) -> str:
        """What stands once before worked examples and question in the raw layout."""
        return ""

    def solution(self, row: dict, layout: str) -> str:
        """A row's right answer as it follows the prompt, for a worked example and for its loss."""
        raise NotImplementedError(f"{type(self).__name__} has no solution(row, layout) to show")

    def choices(self, row: dict, layout: str) -> tuple[str, ...]:
        """The answers that a row can have, each as it follows the prompt, for scoring by likelihood."""
        raise NotImplementedError(f"{type(self).__name__} has no choices(row, layout)")

    def stops(self, layout: str) -> tuple[str, ...]:
        """Strings before which an answer ends, beside those of the prompt template in its layout."""
        return ()

    def read(self, row: dict, raw: str) -> dict[str, Any]:
        """ "parsed", "gold", "scores" (name → 0 to 1) and any other fields of an answer's record."""
        raise NotImplementedError(f"{type(self).__name__} has no read(row, raw)")

    def controls(self, prompts: Sequence[Prompt], *, protocol: Protocol) -> dict[str, float]:
        """What known answers to the same prompts score, a mean of 0 to 1 by what they are called; kept in meta.json."""
        return {}

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence],
        *,
        protocol: Protocol,
        permissions: Permissions,
        progress=None,
    ) -> list[dict]:
        """The records of all items: each answer read by itself.

        Args:
            prompts: as they were put.
            answers: of each prompt, its samples (text), or the log-probabilities of its choices (float), or the record
                of its loss (`reproduction.evals.loss`).
            protocol: what was asked.
            permissions: what the user allows, for benchmarks that run code.
            progress: called with (done, total), where scoring takes long.
        """
        return [
            record(prompt, sample, raw, **self.read(prompt.row, raw))
            for prompt, samples in zip(prompts, answers, strict=True)
            for sample, raw in enumerate(samples)
        ]


def names(kind: str = "tasks") -> list[str]:
    """Names of all "tasks" or "judges": a file in the folder of that name is one."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).with_name(kind))]))


def load_task(name: str, file: Path | str | None = None) -> Task:
    """A benchmark by name, or from a file of one's own.

    Raises ValueError for a name that is not there, or a file that is none, does not run or has no `TASK`.
    """
    if file is None:
        return load_part("tasks", name).TASK
    return _from_file(name, Path(file).resolve())


def load_part(kind: str, name: str):
    """The module of one of the "tasks" or "judges". Raises ValueError for a name that is not there."""
    if name not in names(kind):
        raise ValueError(f"{name!r} is none of the {kind}: choose one of {', '.join(names(kind))}")
    return importlib.import_module(f"reproduction.evals.{kind}.{name}")


def file_digest(file: Path | str) -> str:
    """16 hex digits of a benchmark file's content."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


@functools.cache
def _from_file(name: str, path: Path) -> Task:
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"the benchmark {name} has file={path}, which is no .py file: give the path of one")
    spec = importlib.util.spec_from_file_location(f"idlora_task_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the module that they are in
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a program can run into
        raise ValueError(f"{path} cannot be loaded ({type(error).__name__}: {error}): mend it") from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise ValueError(f"{path} has no benchmark: end it in TASK = …, an instance of reproduction.evals.task.Task")
    return task


def stops(protocol: Protocol, template: Template) -> list[str]:
    """Strings before which an answer ends."""
    return [*protocol.task.stops(protocol.layout), *(template.stops if protocol.layout == TEMPLATE else ())]


def decoding(protocol: Protocol, template: Template) -> dict[str, Any]:
    """All that an answer depends on beside the model, its prompt and the number of its sample, as plain values.

    The number of worked examples is among them: whoever scores takes, of an item's prompts, the longest that has an
    answer, and must not find the one that another number of examples was asked with.
    """
    asked = {"scoring": protocol.scoring, "num_fewshot": protocol.num_fewshot}
    if protocol.source is not None:
        asked["source"] = protocol.source
    if protocol.scoring != DECODED:
        return asked
    own = {name: getattr(protocol, name) for name in ("max_new_tokens", "temperature")}
    sampling = {"top_p": protocol.top_p, "seed": protocol.seed} if protocol.temperature > 0 else {}
    return asked | own | sampling | {"stops": stops(protocol, template)}
