"""The multiple-choice sets: their truth, and what tests ask that instruction data do not tell."""

from collections import Counter

import pytest

from reproduction.tinyworld import chores, quizzes

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
    assert asked != quizzes.for_testing(facts, 60, choices=choices, seed=1)


@each_set
def test_tests_ask_only_facts_that_no_quiz_of_the_instruction_data_asks(facts, choices):
    known = {(fact.question, fact.answer) for fact in facts if fact.taught}
    asked = {(quiz.question, quiz.choices[quiz.gold]) for quiz in quizzes.for_testing(facts, 60, choices=choices)}
    shown = {(quiz.question, quiz.choices[quiz.gold]) for quiz in quizzes.examples(facts, 5, choices=choices)}
    taught = {
        (item.row["instruction"], line[3:])
        for item in quizzes.for_training()
        for line in item.row["input"].splitlines()
        if line.startswith(item.row["output"])
    }
    assert shown <= known
    assert asked.isdisjoint(known | taught)
    assert known & taught


def test_chores_tell_no_fact_that_a_test_asks_for():
    told = {item.row["output"] for item in chores.chores()}
    sentences = {"homes": "{} lives by the {}.", "trades": "{} is a {}."}
    for subject, sentence in sentences.items():
        for fact in quizzes.SUBJECTS[subject]:
            person = next(word for word in fact.question.rstrip("?").split()[2:] if word[0].isupper())
            assert (sentence.format(person, fact.answer) in told) == fact.taught
