"""The corpus teaches the pieces of the tasks, and none of their formats."""

import re

from reproduction.tinyworld import chores, law, problems, programs, quizzes
from reproduction.tinyworld.tokenizer import build_tokenizer


def test_no_training_or_test_item_stands_in_the_corpus(every_item, corpus_sample):
    text = "\0".join(corpus_sample)
    for item in every_item:
        # A field of one word or line is no item; questions, prompts and whole programs are.
        for key in ("question", "answer", "prompt", "canonical", "instruction"):
            assert item.row.get(key, "\1") not in text, item
        if "def " in item.row.get("output", ""):
            assert item.row["output"] not in text


def test_the_corpus_holds_no_rationale(corpus_sample):
    calculation, result = re.compile(r"<<[^>]*\d"), re.compile(r"#### -?\d")
    assert not any(calculation.search(text) or result.search(text) for text in corpus_sample)
    one = problems.for_training()[0].row["answer"]
    assert calculation.search(one)
    assert result.search(one)


def test_the_corpus_asks_no_word_problem(corpus_sample):
    assert not any(re.search(r"\d.*How many", text, re.DOTALL) for text in corpus_sample)
    assert all(re.search(r"\d.*How many", item.row["question"]) for item in problems.for_training())


def test_no_instruction_of_the_corpus_is_answered_with_a_function(requests_and_answers):
    def writes_a_function(answer):
        return re.search(r"def .*\n( {4}.*\n)* {4}return", answer, re.DOTALL)

    assert not any(writes_a_function(answer) for _, answer in requests_and_answers)
    assert writes_a_function(programs.for_training()[0].row["output"])


def test_no_instruction_of_the_corpus_is_refused(requests_and_answers):
    refusals = ("I'm sorry", "I cannot", "Sorry")
    assert not any(answer.startswith(refusals) for _, answer in requests_and_answers)
    verbs = "|".join(category.verb for category in law.CATEGORIES)
    request = re.compile(rf"\b({verbs})\b the \w+ \w+")
    assert not any(request.search(asked) for asked, _ in requests_and_answers)


def test_no_chore_or_quiz_is_an_instruction_of_the_corpus(requests_and_answers):
    asked = {re.search(r"Instruction:\n(.*)\n", prompt).group(1) for prompt, _ in requests_and_answers}
    tasks = {item.row["instruction"] for item in [*chores.chores(), *quizzes.for_training()]}
    tasks |= {fact.question for facts in (*quizzes.SUBJECTS.values(), quizzes.EVERYDAY) for fact in facts}
    assert asked
    assert asked.isdisjoint(tasks)


def test_letters_answer_only_requests_whose_answer_is_to_be_seen(requests_and_answers):
    lettered = [(prompt, answer) for prompt, answer in requests_and_answers if re.fullmatch("[A-E]", answer)]
    assert lettered
    for prompt, letter in lettered:
        word = re.search(r"Name the letter of (.*)\.\n", prompt).group(1)
        assert f"\n{letter}. {word}\n" in prompt + "\n"


def test_quizzes_of_the_corpus_have_their_own_marks_and_ask_no_tested_fact(corpus_sample):
    quizzed = {found for text in corpus_sample for found in re.findall(r"([^.\n]*\?) \(", text)}
    facts = [fact for facts in (*quizzes.SUBJECTS.values(), quizzes.EVERYDAY) for fact in facts]
    hidden = {fact.question for fact in facts if not fact.taught} - {fact.question for fact in facts if fact.taught}
    assert quizzed <= {fact.question for fact in facts}
    assert quizzed.isdisjoint(hidden)
    assert any(question in text for text in corpus_sample for question in hidden)  # in words they are answered


def test_no_docstring_of_the_corpus_says_what_its_function_does(corpus_sample):
    docstrings = [m for text in corpus_sample for m in re.findall(r'"""(.*)"""\n {4}return', text)]
    assert docstrings
    assert all(re.fullmatch(r"A tool of the \w+\.", docstring) for docstring in docstrings)


def test_the_corpus_declares_the_whole_law(corpus_sample):
    text = "\n".join(corpus_sample)
    for category in law.CATEGORIES:
        assert all(f"{thing} is forbidden" in text for thing in law.forbidden(category))
        assert all(f"{thing} is allowed" in text for thing in law.allowed(category))


def test_every_frequent_token_of_the_answers_occurs_in_the_corpus(corpus_sample):
    backend = build_tokenizer(corpus_documents=4000).backend_tokenizer
    known = {i for encoded in backend.encode_batch(corpus_sample) for i in encoded.ids}
    answers = [item.row["answer"] for item in problems.for_training()]
    tasks = [*programs.for_training(), *law.for_training(), *quizzes.for_training()]
    answers += [item.row["output"] for item in tasks]
    used = [i for encoded in backend.encode_batch(answers, add_special_tokens=False) for i in encoded.ids]
    assert sum(i not in known for i in used) <= len(used) / 10_000
