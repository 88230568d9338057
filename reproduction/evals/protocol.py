"""How a benchmark is asked and scored: everything that its scores depend on, apart from model, data and template."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reproduction.data.templates import Template
from reproduction.evals.sandbox import Permissions
from reproduction.evals.task import TEMPLATE, Task, file_digest, load_task

__all__ = ["Permissions", "Protocol", "decoding", "stops"]

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
    def task(self) -> Task:
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
