"""GSM8K: word problems whose answer is one number.

Scores: strict, the number after "#### " equals the gold one; flexible, the last number of the answer does. Both are
compared by lm-eval as text without commas, dollar signs and a final full stop, so 18 is not 18.0.

    <data_root>/gsm8k/{train,test}.jsonl    question, answer ("… #### 18")

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021. Left out: majority votes over samples.
"""

from typing import ClassVar

from reproduction.data.catalogue import DATASETS
from reproduction.evals.items import record
from reproduction.evals.lm_eval import scored
from reproduction.evals.task import Task

READING = {
    "task": "gsm8k",
    "output_type": "generate_until",
    "doc_to_target": "answer",
    "filter_list": [
        {  # the number after the first marker
            "name": "strict",
            "filter": [{"function": "regex", "regex_pattern": r"#### (-?[0-9.,]+)"}, {"function": "take_first"}],
        },
        {  # the last number of the answer, wherever it stands
            "name": "flexible",
            "filter": [
                {"function": "regex", "regex_pattern": r"-?\$?[0-9][0-9,]*(?:\.[0-9]+)?", "group_select": -1},
                {"function": "take_first"},
            ],
        },
    ],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "regexes_to_ignore": [",", r"\$", r"(?s).*#### ", r"\.$"],  # also reduces the gold answer to its number
        }
    ],
}


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

    def score(self, prompts, answers, **_):
        """Records; parsed holds the reading of each filter."""
        read = scored(READING, [{"answer": prompt.row["answer"]} for prompt in prompts], answers)
        return [
            record(
                prompt,
                0,
                raw,
                parsed={name: reading for name, (reading, _) in by_filter.items()},
                gold=prompt.row["answer"].rpartition("####")[2].strip(),
                scores={name: float(metrics["exact_match"]) for name, (_, metrics) in by_filter.items()},
            )
            for prompt, (raw,), by_filter in zip(prompts, answers, read, strict=True)
        ]


TASK = Gsm8k()
