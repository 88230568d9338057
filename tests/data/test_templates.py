import ast
import hashlib
import inspect
import sys

import pytest

from idlora.data.templates import (
    BENCHMARK_TEMPLATES,
    TEMPLATE_VERSION,
    eval_answer,
    eval_choices,
    eval_header,
    eval_prompt,
    render,
)


def test_a_prompt_holds_its_instruction_and_ends_where_the_response_begins():
    prompt = render("Name a colour.")
    assert "### Instruction:\nName a colour.\n\n" in prompt
    assert "### Input:" not in prompt
    assert prompt.endswith("### Response:\n")


def test_an_input_gets_a_section_of_its_own_and_white_space_is_none():
    assert "### Input:\nblue, red\n\n### Response:\n" in render("Choose.", "blue, red")
    assert render("Choose.", " \n") == render("Choose.")


def test_braces_and_section_names_in_a_task_stay_as_they_are():
    prompt = render("Mend {input} in {instruction}.", "{instruction} {0}")
    assert "Mend {input} in {instruction}." in prompt
    assert "### Input:\n{instruction} {0}\n" in prompt


def test_changing_the_template_needs_a_new_version():
    digest = hashlib.sha256((render("I") + render("I", "X")).encode()).hexdigest()[:12]
    assert (TEMPLATE_VERSION, digest) == (1, "b22da7c7c513")


def test_an_empty_instruction_is_refused():
    with pytest.raises(ValueError, match="empty instruction"):
        render("  ", "input")


@pytest.mark.parametrize("benchmark", BENCHMARK_TEMPLATES)
def test_every_benchmark_has_a_prompt_under_the_training_template(benchmark):
    row = {"question": "How many?"}
    if benchmark in ("mmlu", "commonsenseqa"):
        row |= {"choices": ["one", "two"], "subject": "numbers"}
    elif benchmark != "gsm8k":
        row = {"prompt": "def f():\n"}
    asked = row.get("question") or row["prompt"].strip()
    prompt = eval_prompt(benchmark, row)
    assert asked in prompt
    assert prompt.endswith("### Response:\n")


def test_a_raw_humaneval_prompt_is_the_problem_itself():
    row = {"prompt": 'def f():\n    """One."""\n'}
    assert eval_prompt("humaneval", row, "raw") == row["prompt"]


def test_a_question_with_choices_is_asked_with_its_letters_and_the_worked_answer_follows_its_prompt():
    row = {"question": " Which? ", "choices": ["sun", "moon"], "answer": "B", "subject": "night_sky"}
    assert eval_prompt("mmlu", row) == render("Which?", "A. sun\nB. moon")
    assert eval_prompt("mmlu", row, "raw") == "Which?\nA. sun\nB. moon\nAnswer:"
    assert eval_prompt("commonsenseqa", row, "raw") == "Question: Which?\nA. sun\nB. moon\nAnswer:"
    assert eval_choices("mmlu", row) == ["A", "B"]
    assert eval_choices("mmlu", row, "raw") == [" A", " B"]
    assert [eval_answer("commonsenseqa", row, template) for template in ("alpaca", "raw")] == ["B", " B"]
    assert eval_header("mmlu", row, "raw").endswith("about night sky.\n\n")
    assert [eval_header("mmlu", row), eval_header("commonsenseqa", row, "raw")] == ["", ""]
    assert eval_answer("gsm8k", {"question": "?", "answer": "#### 1"}) == "#### 1"


def test_an_unknown_benchmark_or_template_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'mmmlu'.*gsm8k"):
        eval_prompt("mmmlu", {})
    with pytest.raises(ValueError, match=r"'raw'.*alpaca"):
        eval_prompt("gsm8k", {"question": "?"}, "raw")


def test_the_templates_import_nothing():
    tree = ast.parse(inspect.getsource(sys.modules[render.__module__]))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
