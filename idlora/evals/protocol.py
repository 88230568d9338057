"""How a benchmark is put to a model: everything that its scores depend on, apart from the model and the data."""

from dataclasses import asdict, dataclass
from typing import Any

from idlora.evals import registry
from idlora.evals.sandbox import Permissions

__all__ = ["Permissions", "Protocol"]

SCORINGS = ("generated", "likelihood")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One evaluation's settings.

    Attributes:
        benchmark: a module of `idlora.evals.benchmarks`.
        protocol_version: raised whenever prompts, parsing or scoring change, so that old results are not taken for new.
        name: what a person calls it, and no part of what is asked.
        scoring: "generated" decodes an answer and reads it; "likelihood" takes the most probable of an item's choices
            and decodes nothing.
        max_new_tokens: most tokens of an answer; None where none is decoded.
        temperature: 0 is greedy decoding.
        top_p: nucleus; 1 samples from the whole distribution. Read only where the temperature is above 0.
        samples: answers per item.
        num_fewshot: worked examples before each question; fewer where they do not fit the model's context.
        template: how an item becomes a prompt; see `idlora.data.templates.eval_prompt`.
        judge: a module of `idlora.evals.judges`, where the benchmark needs one.
        limit: only the first items; None is all.
        seed: of sampling.
        execution_seconds: wall-clock limit of one program, where the benchmark runs programs.

    Raises:
        ValueError: a value out of range, or a setting that the benchmark does not have.
    """

    benchmark: str
    protocol_version: int
    name: str = ""
    scoring: str = "generated"
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    num_fewshot: int = 0
    template: str = "alpaca"
    judge: str | None = None
    limit: int | None = None
    seed: int = 0
    execution_seconds: float = 3.0

    def __post_init__(self):
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring={self.scoring!r} is none of {', '.join(SCORINGS)}")
        if (self.max_new_tokens is None) != (self.scoring == "likelihood"):
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
        registry.load("benchmarks", self.benchmark).check(self)

    @property
    def identity(self) -> dict[str, Any]:
        """What is asked, as plain values: everything but the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def refuse(self, **unused) -> None:
        """For a benchmark's `check`: raises ValueError where a setting is not the only one that it has."""
        for name, value in unused.items():
            if getattr(self, name) != value:
                raise ValueError(f"{self.benchmark} has no {name}={getattr(self, name)!r}: leave it at {value!r}")
