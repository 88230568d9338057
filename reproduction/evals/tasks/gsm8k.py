"""GSM8K: word problems with one number as the answer.

Scores: strict, the number after "#### " equals the gold one; flexible, the last number of the answer equals it.
lm-eval compares them as text without commas, dollar signs and a final full stop, so 18 is not 18.0.

    <data_root>/gsm8k/{train,test}.jsonl    question, answer ("… #### 18")

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021.
"""

from typing import ClassVar

from reproduction.data.catalogue import DATASETS
from reproduction.evals.lm_eval import exact_match, first_match
from reproduction.evals.task import Task

READINGS = {  # the number after the first marker, and the last number of the answer
    "strict": {"pattern": r"#### (-?[0-9.,]+)"},
    "flexible": {"pattern": r"-?\$?[0-9][0-9,]*(?:\.[0-9]+)?", "group_select": -1},
}
IGNORED = [",", r"\$", r"(?s).*#### ", r"\.$"]  # also reduces the gold answer to its number


class Gsm8k(Task):
    data = DATASETS["gsm8k"]
    unit = "question"
    defaults: ClassVar = {"max_new_tokens": 512}

    def check(self, protocol) -> None:
        protocol.refuse(scoring="generated", samples=1, judge=None)

    def instruction(self, row):
        return row["question"], ""

    def solution(self, row, layout):
        return row["answer"]

    def read(self, row, raw):
        parsed = {name: first_match(raw, **how) for name, how in READINGS.items()}
        return {
            "parsed": parsed,
            "gold": row["answer"].rpartition("####")[2].strip(),
            "scores": {
                name: exact_match(each, row["answer"], regexes_to_ignore=IGNORED) for name, each in parsed.items()
            },
        }


TASK = Gsm8k()
