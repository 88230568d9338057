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
            city = raw.strip()
            return {"parsed": city, "gold": row["capital"], "scores": {"exact": float(city == row["capital"])}}

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

import copy
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
SCORINGS = ("generated", "likelihood", "loss")
DECODED = "generated"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One evaluation's settings.

    Args:
        benchmark: a file of `reproduction.evals.tasks`, or what the one in `file` is called.
        protocol_version: raised whenever reading or scoring change; old scores are void then, and answers stay.
        name: label of the protocol; no part of what is asked.
        file: Python file of a user's own benchmark.
        source: of the rows, where the benchmark has several.
        share: of the rows that are asked, in (0, 1); None is all.
        scoring: "generated" decodes an answer and reads it, "likelihood" takes the most probable of an item's choices,
            "loss" measures the loss of its solution.
        max_new_tokens: most tokens of a generated answer, at least 1; None for the other scorings.
        temperature: at least 0; 0 is greedy decoding.
        top_p: nucleus in (0, 1]; 1 samples from the whole distribution. Read only where the temperature is above 0.
        samples: answers per item, at least 1; more than one needs a temperature.
        num_fewshot: worked examples before each question; fewer where they do not fit the model's context.
        layout: "template" puts an item as an instruction in the prompt template, "raw" as text that goes on.
        judge: a module of `reproduction.evals.judges`, where the benchmark needs one.
        limit: only the first items; None is all.
        seed: of sampling.
        execution_seconds: wall-clock limit of one program, where the benchmark runs programs.

    Raises ValueError for a value out of range, a setting that the benchmark does not have, or no such benchmark.
    """

    benchmark: str
    protocol_version: int
    name: str = ""
    file: Path | None = None
    source: str | None = None
    share: float | None = None
    scoring: str = DECODED
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
        decodes, sampled = self.scoring == DECODED, self.temperature > 0 and self.scoring == DECODED
        for name, allowed, wanted in (
            ("scoring", self.scoring in SCORINGS, f"one of {', '.join(SCORINGS)}"),
            (
                "max_new_tokens",
                (self.max_new_tokens is not None) == decodes,
                f"a number where scoring={DECODED!r} alone",
            ),
            ("max_new_tokens", self.max_new_tokens is None or self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("samples", self.samples >= 1, "at least 1"),
            ("samples", self.samples == 1 or sampled, "1 where nothing is sampled: several need a temperature above 0"),
            ("num_fewshot", self.num_fewshot >= 0, "at least 0"),
            ("limit", self.limit is None or self.limit >= 1, "at least 1, or null for all"),
            ("execution_seconds", self.execution_seconds > 0, "above 0"),
            ("share", self.share is None or 0 < self.share < 1, "between 0 and 1, or null"),
            ("layout", self.layout in self.task.layouts, f"one of {', '.join(self.task.layouts)}"),
        ):
            if not allowed:
                raise ValueError(f"{self.benchmark} has {name}={getattr(self, name)!r}: give {wanted}")
        self.task.check(self)

    @property
    def task(self) -> "Task":
        """The benchmark, as this protocol asks it."""
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
        data: its data set; None where the protocol's source decides.
        split: of the data set that is asked.
        shown: split whose rows serve as worked examples.
        unit: what an item is called where scores are printed.
        layouts: those that it has.
        defaults: settings of a `Protocol` that hold where a config gives none.
        runs_code: whether scoring runs what the model wrote, which needs permission.
        shared: whether a protocol may ask a share of the rows.
        share, judge: of the protocol, see `configured`.
    """

    data: DatasetSpec | None = None
    split: str = "test"
    shown: str = "train"
    unit: str = "item"
    layouts: tuple[str, ...] = (TEMPLATE,)
    defaults: ClassVar[Mapping[str, Any]] = {}
    runs_code: bool = False
    shared: bool = False
    share: float | None = None
    judge: str | None = None

    def configured(self, protocol: Protocol) -> "Task":
        """A copy of the benchmark as a protocol asks it. Raises ValueError for a source or share that it lacks."""
        protocol.refuse(source=None)
        if not self.shared:
            protocol.refuse(share=None)
        task = copy.copy(self)
        task.share, task.judge = protocol.share, protocol.judge
        return task

    def check(self, protocol: Protocol) -> None:
        """Raises ValueError for settings that the benchmark does not have."""
        protocol.refuse(scoring=DECODED, num_fewshot=0, judge=None)

    def rows(self, *, root: Path | None, revisions: Mapping[str, str] | None = None) -> list[dict]:
        """The rows that are asked. Raises DataError, see `reproduction.data.load_rows`."""
        return load_rows(self.data, self.split, root=root, revisions=revisions)

    @property
    def published_rows(self) -> int:
        """How many rows are asked by what the hub's card says; 0 where it is not known. For estimates of time."""
        return round(self.data.rows.get(self.split, 0) * (self.share or 1))

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

    def read(self, row: dict, raw: Any) -> dict[str, Any]:
        """ "parsed", "gold", "scores" (name → 0 to 1) and any other fields of an answer's record.

        ``raw`` is a text; by likelihood the log-probabilities of the choices and by loss its record
        (`reproduction.evals.loss`), and there "raw" is among the fields, too.
        """
        raise NotImplementedError(f"{type(self).__name__} has no read(row, raw)")

    def controls(self, prompts: Sequence[Prompt]) -> dict[str, float]:
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
        """The records of all items; ``answers`` has the samples of each prompt, as `read` takes them.

        ``permissions`` are for benchmarks that run code; ``progress`` is called with (done, total) where that is long.
        """
        return [
            record(prompt, sample, **{"raw": raw, **self.read(prompt.row, raw)})
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
    if not isinstance(task := getattr(module, "TASK", None), Task):
        raise ValueError(f"{path} has no benchmark: end it in TASK = …, an instance of reproduction.evals.task.Task")
    return task


def stops(protocol: Protocol, template: Template) -> list[str]:
    """Strings before which an answer ends."""
    return [*protocol.task.stops(protocol.layout), *(template.stops if protocol.layout == TEMPLATE else ())]


def decoding(protocol: Protocol, template: Template) -> dict[str, Any]:
    """All that an answer depends on beside the model, its prompt and the number of its sample, as plain values.

    The number of worked examples is among them: scoring takes, of an item's prompts, the longest that has an answer,
    and must not find the one that another number of examples was asked with.
    """
    asked = {"scoring": protocol.scoring, "num_fewshot": protocol.num_fewshot}
    if protocol.source is not None:
        asked["source"] = protocol.source
    if protocol.scoring != DECODED:
        return asked
    own = {name: getattr(protocol, name) for name in ("max_new_tokens", "temperature")}
    sampling = {"top_p": protocol.top_p, "seed": protocol.seed} if protocol.temperature > 0 else {}
    return asked | own | sampling | {"stops": stops(protocol, template)}
