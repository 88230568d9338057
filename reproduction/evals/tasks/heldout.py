"""Held-out loss: nats a response token over rows that no training saw. Lower is better; nothing is generated.

    source: gsm8k, codealpaca, alpaca, saferpaca    the rows kept out of that training set (`reproduction.data.splits`)
    source: safety                                  the same of Saferpaca's safety rows
    source: gsm8k_test                              GSM8K's test questions with their answers
    source: humaneval                               HumanEval's problems with the whole function that solves them

A row is put as training puts it, in the prompt template, and its response is the training set's. Scores, neither of
them between 0 and 1: nats_per_token, whose mean over rows is weighted by their tokens (the end token counts), so that
it is the nats of all rows over the tokens of all rows; and bits_per_byte, weighted by bytes of UTF-8, which compares
models of different tokenizers (the end token's nats are in it, and no byte). Extra fields: nats, weights.

Rows are asked in the order of the hash that keeps them out, so `limit` takes a part that does not depend on the order
of the file. Left out: rows that are longer than the model's context, empty or there twice; they are named in meta.json.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from reproduction.data.catalogue import DATASETS, DatasetSpec
from reproduction.data.examples import asked, response
from reproduction.data.mixture import load_held_out
from reproduction.data.sources import load_rows
from reproduction.data.splits import Prompt, place
from reproduction.evals.items import record
from reproduction.evals.task import Task, load_task


@dataclass(frozen=True)
class Source:
    """Where rows come from: a split, what a row asks and answers; ``trained``: the rest of the split is trained on."""

    data: DatasetSpec
    split: str
    asked: Callable[[dict], Prompt]
    response: Callable[[dict], str]
    trained: bool = False


def _of_training(name: str, split: str = "train") -> Source:
    return Source(
        DATASETS[name],
        split,
        partial(asked, name),
        partial(response, name),
        trained=split == "train",
    )


@cache
def _sources() -> dict[str, Source]:
    problems = load_task("humaneval")
    return {
        **{name: _of_training(name) for name in DATASETS},
        "gsm8k_test": _of_training("gsm8k", "test"),
        "humaneval": Source(
            problems.data,
            "test",
            problems.instruction,
            # A training set's answers write the function whole, and so do models that were tuned on them.
            lambda row: (row["prompt"] + row["canonical_solution"]).strip(),
        ),
    }


class HeldOut(Task):
    unit = "row"

    def configured(self, protocol):
        sources = _sources()
        if protocol.source not in sources:
            raise ValueError(f"source={protocol.source!r} is none of {', '.join(sources)}")
        task = copy.copy(self)
        task.source, task.share = sources[protocol.source], protocol.share
        task.data = task.source.data
        return task

    def check(self, protocol) -> None:
        protocol.refuse(scoring="loss", num_fewshot=0, judge=None)
        if self.source.trained != (protocol.share is not None) or not 0 < (protocol.share or 0.5) < 1:
            wanted = "a number between 0 and 1, the share that is kept out" if self.source.trained else "null"
            raise ValueError(f"share={protocol.share} does not go with source={protocol.source}: give {wanted}")

    def rows(self, *, root, revisions=None):
        if self.source.trained:
            return load_held_out(self.data.name, root=root, revisions=revisions, share=self.share)
        rows = load_rows(self.data, self.source.split, root=root, revisions=revisions)
        return sorted(rows, key=lambda row: -place(self.source.asked(row)))

    @property
    def published_rows(self):
        return round(self.data.rows.get(self.source.split, 0) * (self.share or 1))

    def instruction(self, row):
        return self.source.asked(row)

    def solution(self, row, layout):
        return self.source.response(row)

    def score(self, prompts, answers, **_):
        """Records; extra fields: nats, weights."""
        return [
            record(
                prompt,
                0,
                "",
                parsed=None,
                gold=None,
                scores={
                    "nats_per_token": answer["nats"] / answer["tokens"],
                    "bits_per_byte": answer["nats"] / math.log(2) / answer["bytes"],
                },
                weights={"nats_per_token": answer["tokens"], "bits_per_byte": answer["bytes"]},
                nats=answer["nats"],
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


TASK = HeldOut()
