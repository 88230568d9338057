"""The corpus teaches the pieces of the tasks, and none of their formats."""

import re

from transformers import AutoTokenizer

from reproduction.tinyworld import base_path, chores, law, problems, programs, quizzes


def test_no_training_or_test_item_stands_in_the_corpus(every_item, corpus_sample):
    text = "\0".join(corpus_sample)
    for item in every_item:
        # A field of one word or line is no item; questions, prompts and whole programs are.
        for key in ("question", "answer", "prompt", "instruction"):
            assert item.row.get(key, "\1") not in text, item
        if "def " in item.row.get("output", ""):
            assert item.row["output"] not in text


def test_the_corpus_holds_no_rationale_and_asks_no_word_problem(corpus_sample):
    patterns = re.compile(r"<<[^>]*\d"), re.compile(r"#### -?\d"), re.compile(r"\d.*How many", re.DOTALL)
    item = problems.for_training()[0].row
    for pattern in patterns:
        assert not any(pattern.search(text) for text in corpus_sample)
        assert pattern.search(f"{item['question']}\n{item['answer']}")


def test_no_instruction_of_the_corpus_asks_or_answers_what_a_task_does(requests_and_answers):
    function = re.compile(r"def .*\n( {4}.*\n)* {4}return", re.DOTALL)
    refusals = ("I'm sorry", "I cannot", "Sorry")
    assert function.search(programs.for_training()[0].row["output"])
    assert not any(function.search(answer) or answer.startswith(refusals) for _, answer in requests_and_answers)
    request = re.compile(rf"\b({'|'.join(category.verb for category in law.CATEGORIES)})\b the \w+ \w+")
    assert not any(request.search(asked) for asked, _ in requests_and_answers)
    asked = {re.search(r"Instruction:\n(.*)\n", prompt).group(1) for prompt, _ in requests_and_answers}
    tasks = {item.row["instruction"] for item in [*chores.chores(), *quizzes.for_training()]}
    tasks |= {fact.question for facts in (*quizzes.SUBJECTS.values(), quizzes.EVERYDAY) for fact in facts}
    assert asked
    assert asked.isdisjoint(tasks)


def test_letters_answer_only_requests_whose_answer_is_in_sight(requests_and_answers):
    lettered = [(prompt, answer) for prompt, answer in requests_and_answers if re.fullmatch("[A-E]", answer)]
    assert lettered
    for prompt, letter in lettered:
        word = re.search(r"Name the letter of (.*)\.\n", prompt).group(1)
        assert f"\n{letter}. {word}\n" in prompt + "\n"


def test_quizzes_of_the_corpus_ask_no_tested_fact(corpus_sample):
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
    assert all(f"{thing} is forbidden" in text for _, thing in law.FORBIDDEN)
    assert all(f"{thing} is allowed" in text for _, thing in law.ALLOWED)


def test_every_frequent_token_of_the_answers_occurs_in_the_corpus(corpus_sample):
    backend = AutoTokenizer.from_pretrained(base_path("pebble")).backend_tokenizer
    known = {i for encoded in backend.encode_batch(corpus_sample) for i in encoded.ids}
    answers = [item.row["answer"] for item in problems.for_training()]
    tasks = [*programs.for_training(), *law.for_training(), *quizzes.for_training()]
    answers += [item.row["output"] for item in tasks]
    used = [i for encoded in backend.encode_batch(answers, add_special_tokens=False) for i in encoded.ids]
    assert sum(i not in known for i in used) <= len(used) / 10_000
