"""The generated tasks: their schemas, their truth, and that test and training differ."""

import re
import subprocess
import sys

import pytest

from reproduction.tinyworld import law, problems, programs
from reproduction.tinyworld.lexicon import mask_numbers


def structures(items):
    return {item.structure for item in items}


@pytest.mark.parametrize(
    ("training", "testing"),
    [(problems.for_training(), problems.for_testing()), (programs.for_training(), programs.for_testing())],
    ids=["problems", "programs"],
)
def test_a_fifth_of_the_test_items_has_structures_that_training_never_shows(training, testing):
    novel = [item for item in testing if item.novel]
    assert len(novel) == len(testing) // 5
    assert structures(novel).isdisjoint(structures(training))
    assert structures(item for item in testing if not item.novel) <= structures(training)


def test_a_fifth_of_the_forbidden_prompts_has_phrasings_and_things_that_training_never_shows(forbidden_and_allowed):
    training = [item for item in law.for_training() if "thing" in item.about]
    for side in forbidden_and_allowed:
        novel = [item for item in side if item.novel]
        assert len(novel) == len(side) // 5 == 20
        assert structures(novel).isdisjoint(structures(training))
        assert {item.about["thing"] for item in novel}.isdisjoint({item.about["thing"] for item in training})
        assert {item.about["thing"] for item in side if not item.novel} <= {item.about["thing"] for item in training}


def test_no_test_problem_is_a_training_problem_with_other_numbers():
    training = {mask_numbers(item.row["question"]) for item in problems.for_training()}
    testing = [mask_numbers(item.row["question"]) for item in problems.for_testing()]
    assert training.isdisjoint(testing)
    assert len(set(testing)) == len(testing)
    assert mask_numbers("Ada has 7 figs.") == mask_numbers("Ada has 12 figs.") != mask_numbers("Bo has 7 figs.")


def test_no_test_program_or_prompt_is_a_training_one(forbidden_and_allowed):
    names = {re.search(r"(\w+)\(", item.row["output"]).group(1) for item in programs.for_training()}
    assert names.isdisjoint(item.row["entry_point"] for item in programs.for_testing())
    asked = {item.row["instruction"] for item in law.for_training()}
    for side in forbidden_and_allowed:
        assert asked.isdisjoint(item.row["prompt"] for item in side)


def test_every_mark_of_a_rationale_is_true_and_the_last_line_is_its_result():
    for item in [*problems.for_training(), *problems.for_testing()]:
        answer = item.row["answer"]
        marks = re.findall(r"<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)", answer)
        for left, sign, right, value, shown in marks:
            a, b = int(left), int(right)
            result = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
            assert result == int(value) == int(shown), answer
        assert answer.splitlines()[-1] == f"#### {marks[-1][3]}"
        assert len(marks) == len(answer.splitlines()) - 1


def test_no_answer_can_be_copied_from_its_question():
    for item in [*problems.for_training(), *problems.for_testing()]:
        assert item.row["answer"].split("#### ")[1] not in re.findall(r"\d+", item.row["question"])


def test_every_canonical_solution_passes_its_cases_and_none_passes_anothers():
    items = programs.for_testing()
    lines = ["passed = []"]
    for item in items:
        prompt, body, test, name = (item.row[key] for key in ("prompt", "canonical_solution", "test", "entry_point"))
        other = next(
            o
            for o in items
            if o.structure != item.structure and o.row["prompt"].split("(")[1][:2] == prompt.split("(")[1][:2]
        )
        for solution in (body, other.row["canonical_solution"]):
            lines += [prompt + solution, test, "try:", f"    check({name}); passed.append(True)"]
            lines += ["except (AssertionError, TypeError): passed.append(False)"]
    lines.append("print(all(passed[::2]), any(passed[1::2]))")
    result = subprocess.run([sys.executable, "-I", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=30)
    assert result.stdout.split() == ["True", "False"], result.stderr


def test_training_programs_hold_the_examples_that_their_docstrings_show():
    shown = [item for item in programs.for_training() if ">>>" in item.row["output"]]
    assert shown
    assert all(item.row["input"] and item.row["output"].startswith(item.row["input"].rstrip()) for item in shown)


def test_each_forbidden_prompt_has_an_allowed_twin_that_differs_in_the_thing_alone(forbidden_and_allowed):
    banned = {thing for category in law.CATEGORIES for thing in law.forbidden(category)}
    allowed = {thing for category in law.CATEGORIES for thing in law.allowed(category)}
    assert banned.isdisjoint(allowed)
    for one, other in zip(*forbidden_and_allowed, strict=True):
        assert one.about["thing"] in banned
        assert other.about["thing"] in allowed
        assert one.row["prompt"].replace(one.about["thing"], other.about["thing"]) == other.row["prompt"]


def test_training_refuses_what_is_forbidden_and_answers_what_is_allowed():
    banned = {thing for category in law.CATEGORIES for thing in law.forbidden(category)}
    verdicts = [
        (item.about["thing"] in banned, item.row["output"].startswith(("I'm sorry", "I cannot", "Sorry")))
        for item in law.for_training()
        if "thing" in item.about
    ]
    assert all(is_banned == refused for is_banned, refused in verdicts)
    assert {refused for _, refused in verdicts} == {True, False}


def test_the_same_seed_gives_the_same_items_and_another_seed_others():
    assert problems.for_testing() == problems.for_testing()
    assert problems.for_training(seed=11) != problems.for_training(seed=13)
    assert programs.for_training(seed=21) != programs.for_training(seed=23)
