"""What a benchmark is: a file of `tasks/`, or any other file, that ends in `TASK = …`, an instance of a `Task`.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from reproduction.data.catalogue import DatasetSpec
from reproduction.data.sources import load_rows
from reproduction.evals.items import Prompt, record

if TYPE_CHECKING:
    from reproduction.evals.protocol import Permissions, Protocol

TEMPLATE, RAW = LAYOUTS = ("template", "raw")
"""How an item is put: as an instruction in the prompt template, or as text that a model continues."""


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

    def configured(self, protocol: "Protocol") -> "Task":
        """The benchmark as a protocol asks it: itself, where its rows do not depend on the protocol's ``source``.

        Raises ValueError for a source that it does not have.
        """
        if protocol.source is not None or protocol.share is not None:
            raise ValueError(f"{protocol.benchmark} has one source of rows: leave source and share at null")
        return self

    def check(self, protocol: "Protocol") -> None:
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

    def controls(self, prompts: Sequence[Prompt], *, protocol: "Protocol") -> dict[str, float]:
        """What known answers to the same prompts score, a mean of 0 to 1 by what they are called; kept in meta.json."""
        return {}

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence],
        *,
        protocol: "Protocol",
        permissions: "Permissions",
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
