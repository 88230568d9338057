"""The multiple-choice sets: their truth, and what tests ask that instruction data do not tell."""

import csv
import json
from collections import Counter

import pytest

from reproduction.tinyworld import chores, export, quizzes

SETS = [(name, facts, 4) for name, facts in quizzes.SUBJECTS.items()] + [("everyday", quizzes.EVERYDAY, 5)]
each_set = pytest.mark.parametrize(("facts", "choices"), [s[1:] for s in SETS], ids=[s[0] for s in SETS])


@each_set
def test_a_tests_choices_hold_one_true_answer_and_every_letter_is_true_equally_often(facts, choices):
    asked = quizzes.for_testing(facts, 60, choices=choices)
    truths = {fact.question: set() for fact in facts}
    for fact in facts:
        truths[fact.question].add(fact.answer)
    for quiz in asked:
        assert [choice for choice in quiz.choices if choice in truths[quiz.question]] == [quiz.choices[quiz.gold]]
        assert len(set(quiz.choices)) == choices
    assert set(Counter(quiz.gold for quiz in asked).values()) == {60 // choices}
    assert len(set(asked)) == 60


@each_set
def test_tests_ask_only_facts_that_no_quiz_of_the_instruction_data_asks(facts, choices):
    known = {(fact.question, fact.answer) for fact in facts if fact.taught}
    asked = {(quiz.question, quiz.choices[quiz.gold]) for quiz in quizzes.for_testing(facts, 60, choices=choices)}
    shown = {(quiz.question, quiz.choices[quiz.gold]) for quiz in quizzes.examples(facts, 5, choices=choices)}
    rows = [item.row for item in quizzes.for_training()]
    taught = {
        (row["instruction"], line[3:])
        for row in rows
        for line in row["input"].splitlines()
        if line.startswith(row["output"])
    }
    assert shown <= known
    assert asked.isdisjoint(known | taught)
    assert known & taught


def test_chores_tell_no_fact_that_a_test_asks_for():
    told = {item.row["output"] for item in chores.chores()}
    hidden = [fact for fact in quizzes.SUBJECTS["homes"] if not fact.taught]
    taught = [fact for fact in quizzes.SUBJECTS["homes"] if fact.taught]

    def sentence(fact):
        return f"{fact.question.split()[2]} lives by the {fact.answer}."

    assert told.isdisjoint(map(sentence, hidden))
    assert told.issuperset(map(sentence, taught))
    trades = [fact for fact in quizzes.SUBJECTS["trades"] if not fact.taught]
    people = [fact.question.removesuffix("?").split()[-1] for fact in trades]
    assert not any(f"{person} the " in text or f"{person} is a " in text for person in people for text in told)


def test_the_exported_sets_have_the_public_ones_columns_and_agree_with_the_quizzes(tmp_path):
    root = export(tmp_path)
    subjects = {path.name.removesuffix("_test.csv") for path in (root / "mmlu/test").iterdir()}
    assert subjects == set(quizzes.SUBJECTS) == {p.name.removesuffix("_dev.csv") for p in (root / "mmlu/dev").iterdir()}
    rows = list(csv.DictReader((root / "mmlu/test/homes_test.csv").open(newline="")))
    assert set(rows[0]) == {"question", "choice0", "choice1", "choice2", "choice3", "answer"}
    homes = {fact.question: fact.answer for fact in quizzes.SUBJECTS["homes"]}
    assert all(row[f"choice{row['answer']}"] == homes[row["question"]] for row in rows)
    item = json.loads((root / "commonsenseqa/validation.jsonl").open().readline())
    assert set(item) == {"id", "question", "question_concept", "choices", "answerKey"}
    assert item["choices"]["label"] == list("ABCDE")


def test_another_seed_asks_the_same_facts_otherwise():
    facts = quizzes.SUBJECTS["markets"]
    assert quizzes.for_testing(facts, 20, choices=4) == quizzes.for_testing(facts, 20, choices=4)
    assert quizzes.for_testing(facts, 20, choices=4) != quizzes.for_testing(facts, 20, choices=4, seed=1)
