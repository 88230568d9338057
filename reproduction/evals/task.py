"""`Task`, the base class of benchmarks, and `Protocol`, the settings of one evaluation.

A benchmark is a Python file, in `tasks/` or elsewhere, that ends in `TASK = …`, an instance of a `Task`:

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

Its protocols are listed in capitals.yaml, in configs/eval or in eval/ of the user's own config folder:

    capitals:
      benchmark: capitals
      file: capitals.py           # only for a file outside of `tasks/`; relative to the working directory
      protocol_version: 1
      default: [greedy]
      protocols:
        greedy: {temperature: 0.0}

`eval=capitals` selects it, with `--config-dir <own configs>` for the user's own folder.
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
        benchmark: a module of `reproduction.evals.tasks`, or a name for the benchmark in `file`.
        protocol_version: increased when parsing or scoring changes; this invalidates scores, not answers.
        name: label of the protocol; does not affect answers or scores.
        file: Python file of a user's own benchmark.
        source: source of the rows, if the benchmark has several.
        share: share of the rows, in (0, 1); None for all.
        scoring: "generated" decodes and parses an answer, "likelihood" takes the most probable of an item's choices,
            "loss" measures the loss of its solution.
        max_new_tokens: maximum tokens of a generated answer, at least 1; None for the other scorings.
        temperature: at least 0; 0 is greedy decoding.
        top_p: nucleus in (0, 1]; 1 samples from the whole distribution. Used only if the temperature is above 0.
        samples: answers per item, at least 1; more than one needs a temperature above 0.
        num_fewshot: worked examples before each question; fewer if they do not fit the model's context.
        layout: "template" puts an item into the prompt template as an instruction, "raw" as text to continue.
        judge: a module of `reproduction.evals.judges`, if the benchmark needs one.
        limit: number of first items to use; None for all.
        seed: seed of sampling.
        execution_seconds: wall-clock limit of one program, if the benchmark runs programs.

    Raises ValueError for a value out of range, a setting that the benchmark lacks, or an unknown benchmark.
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
        """The benchmark, configured for this protocol."""
        return load_task(self.benchmark, self.file).configured(self)

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that scores depend on, as plain values: everything but the name."""
        own = {key: value for key, value in asdict(self).items() if key not in ("name", "file")}
        if self.source is None:
            del own["source"]
        if self.share is None and self.source is None:
            del own["share"]
        return own if self.file is None else own | {"file": file_digest(self.file)}

    def refuse(self, **unused) -> None:
        """Raise ValueError if a setting differs from the given value, the only one that the benchmark supports."""
        for name, value in unused.items():
            if getattr(self, name) != value:
                raise ValueError(f"{self.benchmark} has no {name}={getattr(self, name)!r}: leave it at {value!r}")


class Task:
    """A benchmark: the source of its rows, their prompts, and the parsing and scoring of answers.

    Attributes:
        data: data set; None if it depends on the protocol's source.
        split: split to evaluate.
        shown: split for worked examples.
        unit: name of an item in printed scores.
        layouts: supported layouts.
        defaults: default settings of a `Protocol`.
        runs_code: whether scoring runs model-written code, which needs permission.
        shared: whether a protocol may set `share`.
        share, judge: copied from the protocol by `configured`.
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
        """Return a copy configured for a protocol. Raises ValueError for an unsupported source or share."""
        protocol.refuse(source=None)
        if not self.shared:
            protocol.refuse(share=None)
        task = copy.copy(self)
        task.share, task.judge = protocol.share, protocol.judge
        return task

    def check(self, protocol: Protocol) -> None:
        """Raise ValueError for settings that the benchmark does not support."""
        protocol.refuse(scoring=DECODED, num_fewshot=0, judge=None)

    def rows(self, *, root: Path | None, revisions: Mapping[str, str] | None = None) -> list[dict]:
        """Return the rows to evaluate. Raises DataError, see `reproduction.data.load_rows`."""
        return load_rows(self.data, self.split, root=root, revisions=revisions)

    @property
    def published_rows(self) -> int:
        """Number of rows according to the hub's card, 0 if unknown. For time estimates."""
        return round(self.data.rows.get(self.split, 0) * (self.share or 1))

    def examples(self, *, root: Path | None, revisions: Mapping[str, str] | None = None) -> list[dict]:
        """Return rows for worked examples, best first. Raises DataError, see `reproduction.data.load_rows`."""
        return load_rows(self.data, self.shown, root=root, revisions=revisions)

    def instruction(self, row: dict) -> tuple[str, str]:
        """Return a row's instruction and input ("" for none) for the prompt template."""
        raise NotImplementedError(f"{type(self).__name__} has no instruction(row)")

    def raw(self, row: dict) -> str:
        """Return the text that the model continues in the layout "raw"."""
        raise NotImplementedError(f"{type(self).__name__} has no raw layout")

    def header(self, row: dict) -> str:
        """Return the text before the worked examples in the layout "raw"."""
        return ""

    def solution(self, row: dict, layout: str) -> str:
        """Return a row's right answer as it follows the prompt, for worked examples and the loss."""
        raise NotImplementedError(f"{type(self).__name__} has no solution(row, layout) to show")

    def choices(self, row: dict, layout: str) -> tuple[str, ...]:
        """Return a row's choices, each as it follows the prompt, for scoring by likelihood."""
        raise NotImplementedError(f"{type(self).__name__} has no choices(row, layout)")

    def stops(self, layout: str) -> tuple[str, ...]:
        """Return strings that end an answer, in addition to those of the prompt template."""
        return ()

    def read(self, row: dict, raw: Any) -> dict[str, Any]:
        """Parse an answer; return "parsed", "gold", "scores" (name → 0 to 1) and any other fields of its record.

        ``raw`` is the text. For likelihood it is the log-probabilities of the choices, for loss the record of
        `reproduction.evals.loss`; the returned fields then include "raw".
        """
        raise NotImplementedError(f"{type(self).__name__} has no read(row, raw)")

    def controls(self, prompts: Sequence[Prompt]) -> dict[str, float]:
        """Return the mean scores (0 to 1) of known answers to the same prompts, by name; stored in meta.json."""
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
        """Return the records of all items; ``answers`` holds each prompt's samples, as taken by `read`.

        Benchmarks that run code use ``permissions``, and call ``progress`` with (done, total).
        """
        return [
            record(prompt, sample, **{"raw": raw, **self.read(prompt.row, raw)})
            for prompt, samples in zip(prompts, answers, strict=True)
            for sample, raw in enumerate(samples)
        ]


def names(kind: str = "tasks") -> list[str]:
    """Return the names of all "tasks" or "judges", the modules in the folder of that name."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).with_name(kind))]))


def load_task(name: str, file: Path | str | None = None) -> Task:
    """Return a benchmark by name, or from a user's file.

    Raises ValueError for an unknown name, or a file that is missing, does not run or has no `TASK`.
    """
    if file is None:
        return load_part("tasks", name).TASK
    return _from_file(name, Path(file).resolve())


def load_part(kind: str, name: str):
    """Import one of the "tasks" or "judges". Raises ValueError for an unknown name."""
    if name not in names(kind):
        raise ValueError(f"{name!r} is none of the {kind}: choose one of {', '.join(names(kind))}")
    return importlib.import_module(f"reproduction.evals.{kind}.{name}")


def file_digest(file: Path | str) -> str:
    """Return 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


@functools.cache
def _from_file(name: str, path: Path) -> Task:
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"the benchmark {name} has file={path}, which is no .py file: give the path of one")
    spec = importlib.util.spec_from_file_location(f"idlora_task_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module here
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # user code can raise anything
        raise ValueError(f"{path} cannot be loaded ({type(error).__name__}: {error}): mend it") from error
    if not isinstance(task := getattr(module, "TASK", None), Task):
        raise ValueError(f"{path} has no benchmark: end it in TASK = …, an instance of reproduction.evals.task.Task")
    return task


def stops(protocol: Protocol, template: Template) -> list[str]:
    """Return all strings that end an answer."""
    return [*protocol.task.stops(protocol.layout), *(template.stops if protocol.layout == TEMPLATE else ())]


def decoding(protocol: Protocol, template: Template) -> dict[str, Any]:
    """Return the settings that an answer depends on, besides model, prompt and sample number, as plain values.

    They include num_fewshot: scoring uses an item's longest prompt that has an answer, and must not find a prompt of
    another num_fewshot.
    """
    asked = {"scoring": protocol.scoring, "num_fewshot": protocol.num_fewshot}
    if protocol.source is not None:
        asked["source"] = protocol.source
    if protocol.scoring != DECODED:
        return asked
    own = {name: getattr(protocol, name) for name in ("max_new_tokens", "temperature")}
    sampling = {"top_p": protocol.top_p, "seed": protocol.seed} if protocol.temperature > 0 else {}
    return asked | own | sampling | {"stops": stops(protocol, template)}
