"""Held-out loss: nats per response token on rows that no training uses. Lower is better; nothing is generated.

    source: gsm8k, codealpaca, alpaca, saferpaca    held-out rows of that training set (`reproduction.data.splits`)
    source: safety                                  held-out rows of Saferpaca's safety rows
    source: gsm8k_test                              GSM8K's test questions with their answers
    source: humaneval                               HumanEval's problems with the whole canonical function

Prompts and responses are formatted as in training. Scores, not limited to 0 to 1: nats_per_token, whose mean over rows
is weighted by tokens (end token included), so that it equals the nats of all rows over the tokens of all rows; and
bits_per_byte, weighted by bytes of UTF-8, which compares models with different tokenizers (it includes the end token's
nats, but no byte for it). Extra fields: nats, weights.

Rows are ordered by the hash that holds them out, so that `limit` does not depend on the order of the file. Rows longer
than the model's context, empty or duplicate rows are left out and listed in meta.json.
"""

import copy
import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

from reproduction.data.catalogue import DATASETS, DatasetSpec
from reproduction.data.examples import instruction_of, response_of
from reproduction.data.mixture import load_held_out
from reproduction.data.splits import Instruction, place
from reproduction.evals.task import Task, load_task


class Source(NamedTuple):
    """A data set split, and the functions that return a row's instruction and response."""

    data: DatasetSpec
    split: str
    instruction: Callable[[dict], Instruction]
    response: Callable[[dict], str]


@cache
def _sources() -> dict[str, Source]:
    def training_set(name: str, split: str = "train") -> Source:
        return Source(DATASETS[name], split, partial(instruction_of, name), partial(response_of, name))

    def whole_function(row: dict) -> str:  # like the answers in training sets
        return (row["prompt"] + row["canonical_solution"]).strip()

    problems = load_task("humaneval")
    return {
        **{name: training_set(name) for name in DATASETS},
        "gsm8k_test": training_set("gsm8k", "test"),
        "humaneval": Source(problems.data, "test", problems.instruction, whole_function),
    }


class HeldOut(Task):
    unit = "row"

    def configured(self, protocol):
        if protocol.source not in _sources():
            raise ValueError(f"source={protocol.source!r} is none of {', '.join(_sources())}")
        task = copy.copy(self)
        task.source, task.share = _sources()[protocol.source], protocol.share
        task.data, task.split = task.source.data, task.source.split
        return task

    def check(self, protocol) -> None:
        protocol.refuse(scoring="loss", num_fewshot=0, judge=None)
        if (self.split == "train") != (protocol.share is not None):
            wanted = "a number between 0 and 1, the share that is kept out" if self.split == "train" else "null"
            raise ValueError(f"share={protocol.share} does not go with source={protocol.source}: give {wanted}")

    def rows(self, *, root, revisions=None):
        if self.split == "train":
            return load_held_out(self.data.name, root=root, revisions=revisions, share=self.share)
        rows = super().rows(root=root, revisions=revisions)
        return sorted(rows, key=lambda row: -place(self.source.instruction(row)))

    def instruction(self, row):
        return self.source.instruction(row)

    def solution(self, row, layout):
        return self.source.response(row)

    def read(self, row, raw):
        nats, tokens, size = raw["nats"], raw["tokens"], raw["bytes"]
        return {
            "raw": "",
            "parsed": None,
            "gold": None,
            "scores": {"nats_per_token": nats / tokens, "bits_per_byte": nats / math.log(2) / size},
            "weights": {"nats_per_token": tokens, "bits_per_byte": size},
            "nats": nats,
        }


TASK = HeldOut()
