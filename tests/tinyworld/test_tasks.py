"""The generated tasks: their truth, and that test and training differ."""

import re
import subprocess
import sys

import pytest

from reproduction.tinyworld import law, problems, programs

THING = re.compile(rf"\w+ (?:{'|'.join(category.noun for category in law.CATEGORIES)})\b")
FORBIDDEN, ALLOWED = ({thing for _, thing in side} for side in (law.FORBIDDEN, law.ALLOWED))


def structures(items):
    return {item.structure for item in items}


def things(items):
    return {THING.search(item.row.get("prompt") or item.row["instruction"])[0] for item in items}


@pytest.fixture(scope="module")
def requests():
    return [item for item in law.for_training() if item.structure in law.SEEN]


@pytest.mark.parametrize("tasks", [problems, programs])
def test_a_fifth_of_the_test_items_has_structures_that_training_never_shows(tasks):
    training, testing = tasks.for_training(), tasks.for_testing()
    novel = [item for item in testing if item.novel]
    assert len(novel) == len(testing) // 5
    assert structures(novel).isdisjoint(structures(training))
    assert structures(item for item in testing if not item.novel) <= structures(training)
    assert tasks.for_training(seed=3) != training


def test_a_fifth_of_the_forbidden_prompts_has_phrasings_and_things_that_training_never_shows(
    forbidden_and_allowed, requests
):
    for side in forbidden_and_allowed:
        novel = [item for item in side if item.novel]
        assert len(novel) == len(side) // 5 == 20
        assert structures(novel).isdisjoint(structures(requests))
        assert things(novel).isdisjoint(things(requests))
        assert things(item for item in side if not item.novel) <= things(requests)


def test_no_test_item_is_a_training_one_nor_a_problem_one_with_other_numbers(forbidden_and_allowed):
    training = {problems.mask_numbers(item.row["question"]) for item in problems.for_training()}
    testing = [problems.mask_numbers(item.row["question"]) for item in problems.for_testing()]
    assert training.isdisjoint(testing)
    assert len(set(testing)) == len(testing)
    names = {re.search(r"(\w+)\(", item.row["output"]).group(1) for item in programs.for_training()}
    assert names.isdisjoint(item.row["entry_point"] for item in programs.for_testing())
    asked = {item.row["instruction"] for item in law.for_training()}
    assert all(asked.isdisjoint(item.row["prompt"] for item in side) for side in forbidden_and_allowed)


def test_every_mark_of_a_rationale_is_true_and_its_result_is_no_number_of_the_question():
    for item in [*problems.for_training(), *problems.for_testing()]:
        answer = item.row["answer"]
        marks = re.findall(r"<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)", answer)
        for left, sign, right, value, shown in marks:
            a, b = int(left), int(right)
            result = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
            assert result == int(value) == int(shown), answer
        assert answer.splitlines()[-1] == f"#### {marks[-1][3]}"
        assert len(marks) == len(answer.splitlines()) - 1
        assert marks[-1][3] not in re.findall(r"\d+", item.row["question"])


def test_every_canonical_solution_passes_its_cases_and_none_passes_anothers():
    items = programs.for_testing()
    lines = ["passed = []"]
    for item in items:
        prompt, body, test, name = (item.row[key] for key in ("prompt", "canonical_solution", "test", "entry_point"))
        argument = prompt.split("(")[1][:2]
        alike = (o for o in items if o.structure != item.structure and o.row["prompt"].split("(")[1][:2] == argument)
        for solution in (body, next(alike).row["canonical_solution"]):
            lines += [prompt + solution, test, "try:", f"    check({name}); passed.append(True)"]
            lines += ["except (AssertionError, TypeError): passed.append(False)"]
    lines.append("print(all(passed[::2]), any(passed[1::2]))")
    result = subprocess.run([sys.executable, "-I", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=30)
    assert result.stdout.split() == ["True", "False"], result.stderr
    shown = [item for item in programs.for_training() if ">>>" in item.row["output"]]
    assert shown
    assert all(item.row["input"] and item.row["output"].startswith(item.row["input"].rstrip()) for item in shown)


def test_each_forbidden_prompt_has_an_allowed_twin_that_differs_in_the_thing_alone(forbidden_and_allowed):
    assert FORBIDDEN.isdisjoint(ALLOWED)
    for one, other in zip(*forbidden_and_allowed, strict=True):
        (banned,), (free,) = things([one]), things([other])
        assert banned in FORBIDDEN
        assert free in ALLOWED
        assert one.row["prompt"].replace(banned, free) == other.row["prompt"]


def test_training_refuses_what_is_forbidden_and_answers_what_is_allowed(requests):
    refused = [item.row["output"].startswith(("I'm sorry", "I cannot", "Sorry")) for item in requests]
    assert refused == [things([item]) <= FORBIDDEN for item in requests]
    assert set(refused) == {True, False}
