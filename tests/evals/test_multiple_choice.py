"""MMLU and CommonsenseQA: how answers are read, and what answers that are known score."""

import collections
import random

import pytest
from oracle import Oracle
from steps import evaluate, prompt_texts, scored

from reproduction.data.sources import load_rows
from reproduction.evals import Protocol
from reproduction.evals.lm_eval import LETTERS
from reproduction.evals.task import load_task

BENCHMARKS = ("mmlu", "commonsenseqa")


def protocol(benchmark: str = "mmlu", **changes) -> Protocol:
    settings = {"protocol_version": 1, "scoring": "likelihood"} | changes
    if settings["scoring"] == "generated":
        settings = {"max_new_tokens": 200} | settings
    return Protocol(benchmark=benchmark, **settings)


def quiz(number: int, answer: str = "A", *, subject: str | None = "tides") -> dict:
    own = {"subject": subject} if subject else {}
    choices = [f"choice {number} {letter}" for letter in LETTERS[: 4 if subject else 5]]
    return {"id": f"test/{number}", "question": f"Which is {number}?", "choices": choices, "answer": answer, **own}


def by_letter(settings: Protocol, rows, letters, folder) -> list[dict]:
    """Records of a model that is nearly certain of these letters."""
    numbers = [
        [-0.1 if each == letter else -5.0 - place for place, each in enumerate(LETTERS[: len(row["choices"])])]
        for row, letter in zip(rows, letters, strict=True)
    ]
    return scored(settings, rows, numbers, folder)


def correct(records: list[dict], score: str = "acc") -> float:
    return sum(record["scores"][score] for record in records)


# Known letters


@pytest.mark.parametrize("layout", ["raw", "template"])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_knowing_every_letter_scores_100_and_a_letter_for_all_its_share(layout, benchmark, tmp_path):
    subject, choices = ("tides", "ABCD") if benchmark == "mmlu" else (None, "ABCDE")
    rows = [quiz(n, random.Random(n).choice(choices), subject=subject) for n in range(60)]
    gold = [row["answer"] for row in rows]
    settings = protocol(benchmark, layout=layout)
    records = by_letter(settings, rows, gold, tmp_path / "gold")
    assert correct(records) == len(rows)
    assert [r["gold"] for r in records] == [r["parsed"] for r in records] == [r["raw"] for r in records] == gold
    assert all(list(record["loglikelihoods"]) == list(choices) for record in records)
    assert records[0]["loglikelihoods"][gold[0]] == -0.1
    assert [record.get("subject") for record in records] == [subject] * len(rows)
    assert not any("shots" in record for record in records)
    for letter in choices:
        assert correct(by_letter(settings, rows, letter * len(rows), tmp_path / letter)) == gold.count(letter)
    shuffled = random.Random(1).sample(gold, len(gold))
    found = correct(by_letter(settings, rows, shuffled, tmp_path / "shuffled"))
    assert found == sum(a == b for a, b in zip(shuffled, gold, strict=True))
    assert 0 < found < len(rows)


def test_of_equally_probable_letters_the_first_counts(tmp_path):
    rows = [quiz(0, "B"), quiz(1, "C")]
    records = scored(protocol(), rows, [[-3.0, -1.0, -1.0, -2.0]] * 2, tmp_path)
    assert [(record["parsed"], record["scores"]["acc"]) for record in records] == [("B", 1), ("B", 0)]


@pytest.mark.real_data
@pytest.mark.parametrize(("benchmark", "items", "subjects"), [("mmlu", 14_042, 57), ("commonsenseqa", 1_221, 1)])
def test_the_gold_letters_of_all_real_items_score_100(benchmark, items, subjects, real_data, tmp_path):
    settings = protocol(benchmark, layout="raw")
    rows = load_rows(settings.task.data, "test", root=real_data)
    records = by_letter(settings, rows, [row["answer"] for row in rows], tmp_path)
    assert len(records) == correct(records) == items
    assert len({record.get("subject") for record in records}) == subjects


@pytest.mark.real_data
@pytest.mark.parametrize(("benchmark", "step"), [("mmlu", 40), ("commonsenseqa", 4)])
def test_one_letter_for_all_and_shuffled_letters_score_their_share_of_real_items(benchmark, step, real_data, tmp_path):
    settings = protocol(benchmark, layout="raw")
    rows = load_rows(settings.task.data, "test", root=real_data)[::step]
    gold = [row["answer"] for row in rows]
    shuffled = random.Random(2).sample(gold, len(gold))
    for name, letters in (("A", "A" * len(rows)), ("shuffled", shuffled)):
        found = correct(by_letter(settings, rows, letters, tmp_path / name))
        assert found == sum(a == b for a, b in zip(letters, gold, strict=True))
        assert 0.15 < found / len(rows) < 0.3


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_tiny_worlds_sets_are_read_from_the_same_layout_and_known_letters_score_100(benchmark, tmp_path):
    from reproduction import tinyworld

    root, task = tinyworld.export(tmp_path / "world"), load_task(benchmark)
    rows, pool = load_rows(task.data, "test", root=root), task.examples(root=root)
    assert len(rows) >= 100
    assert not {r["question"] + str(r["choices"]) for r in rows} & {r["question"] + str(r["choices"]) for r in pool}
    records = by_letter(protocol(benchmark), rows, [row["answer"] for row in rows], tmp_path / "gold")
    assert correct(records) == len(rows)
    if benchmark == "mmlu":
        per_subject = collections.Counter(row["subject"] for row in pool)
        assert set(per_subject) == {row["subject"] for row in rows}
        assert min(per_subject.values()) >= 5


# How a generated answer is read


READINGS = [
    # answer, strict reading, flexible reading; the right letter is B
    ("B", "B", "B"),
    (" B", "B", "B"),
    ("B.", "B", "B"),
    ("(B)", "B", "B"),
    ("**B**", "B", "B"),
    ("'B'", "B", "B"),
    ("[B]", "B", "B"),
    ("B) the second", "B", "B"),
    ("B: because", "B", "B"),
    ("B\nA", "B", "B"),
    ("\n\nB\n", "B", "B"),
    (" B\n\nWhat else?\nA. x\nB. y\nAnswer: C", "B", "B"),
    ("b", "[INVALID]", "B"),
    ("(b).", "[INVALID]", "B"),
    ("B because it is", "[INVALID]", "B"),
    ("B or C", "[INVALID]", "B"),
    ("The answer is B.", "[INVALID]", "B"),
    ("The correct answer is (B), not (A).", "[INVALID]", "B"),
    ("Answer: B", "[INVALID]", "B"),
    ("A good question. The answer is B", "[INVALID]", "B"),
    ("A, no: the answer is B", "A", "A"),
    ("It is not A but the answer should be B", "[INVALID]", "B"),
    ("I choose A because it is", "[INVALID]", "A"),
    ("A bell rings at B", "[INVALID]", "B"),
    ("I'd say B", "[INVALID]", "B"),
    ("Option C", "[INVALID]", "C"),
    ("ABCD", "[INVALID]", "[INVALID]"),
    ("Bells", "[INVALID]", "[INVALID]"),
    ("B2", "[INVALID]", "[INVALID]"),
    ("A's", "[INVALID]", "[INVALID]"),
    ("choice 12 B", "[INVALID]", "B"),
    ("E", "E", "E"),
    ("F", "[INVALID]", "[INVALID]"),
    ("none of them", "[INVALID]", "[INVALID]"),
    ("", "[INVALID]", "[INVALID]"),
    (" \n ", "[INVALID]", "[INVALID]"),
    ("é…�", "[INVALID]", "[INVALID]"),
    ("42", "[INVALID]", "[INVALID]"),
]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_letter_that_begins_an_answer_and_the_first_one_meant_are_read_side_by_side(benchmark, tmp_path):
    subject = "tides" if benchmark == "mmlu" else None
    rows = [quiz(n, "B", subject=subject) for n in range(len(READINGS))]
    records = scored(protocol(benchmark, scoring="generated"), rows, [answer for answer, *_ in READINGS], tmp_path)
    assert [(r["raw"], r["parsed"]["strict"], r["parsed"]["flexible"]) for r in records] == READINGS
    for record in records:
        assert record["scores"] == {name: float(letter == "B") for name, letter in record["parsed"].items()}
        assert record["gold"] == "B"


@pytest.mark.parametrize(("layout", "end"), [("template", "### Instruction:"), ("raw", "\nQuestion:")])
def test_what_a_model_asks_itself_after_its_answer_is_no_part_of_it(layout, end, tmp_path):
    settings, rows = protocol(scoring="generated", layout=layout), [quiz(7, "C")]
    said = dict.fromkeys(prompt_texts(settings, rows), f"It must be C\n{end}\nAnswer: A")
    (record,) = evaluate(Oracle(said), settings, rows, tmp_path)
    assert record["raw"].strip() == "It must be C"
    assert record["parsed"] == {"strict": "[INVALID]", "flexible": "C"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scoring": "guess"}, "scoring='guess' is none of generated, likelihood"),
        ({"max_new_tokens": 8}, "max_new_tokens=8 does not go with scoring='likelihood'"),
        ({"scoring": "generated", "max_new_tokens": None}, "max_new_tokens=None does not go with scoring='generated'"),
        ({"layout": "chat"}, "mmlu has no layout 'chat': choose one of template, raw"),
        ({"scoring": "generated", "max_new_tokens": 8, "temperature": 0.5}, "mmlu has no temperature=0.5"),
        ({"judge": "prefix"}, "mmlu has no judge='prefix'"),
        ({"benchmark": "gsm8k"}, "gsm8k has no scoring='likelihood'"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Protocol(**{"benchmark": "mmlu", "protocol_version": 1, "scoring": "likelihood"} | changes)
