"""MMLU and CommonsenseQA: what is asked, how answers are read, and what models whose answers are known score."""

import collections
import json
import random
from pathlib import Path

import lm_eval
import pytest
import yaml
from letter_tokenizers import bpe
from lm_eval.tasks import TaskManager
from oracle import TOKENIZER, LetterOracle, Oracle, small_model

from idlora.data.sources import load_rows, load_shown
from idlora.data.templates import LETTERS, eval_answer, eval_header, eval_prompt, render
from idlora.evals import Permissions, Protocol, evaluate
from idlora.records import read_items

BENCHMARKS = ("mmlu", "commonsenseqa")


def protocol(benchmark: str = "mmlu", **changes) -> Protocol:
    settings = {"protocol_version": 1, "scoring": "likelihood"} | changes
    if settings["scoring"] == "generated":
        settings = {"max_new_tokens": 200} | settings
    return Protocol(benchmark=benchmark, **settings)


def quiz(number: int, answer: str = "A", *, split: str = "test", subject: str | None = "tides") -> dict:
    own = {"subject": subject} if subject else {}
    choices = [f"choice {number} {letter}" for letter in LETTERS[: 4 if subject else 5]]
    return {"id": f"{split}/{subject}/{number}", "question": f"Which is {number}?", "choices": choices,
            "answer": answer, **own}  # fmt: skip


def prompt_of(settings: Protocol, row: dict) -> str:
    asked = (settings.benchmark, row, settings.template)
    return eval_header(*asked) + eval_prompt(*asked)


def run(settings: Protocol, rows, model, folder, *, tokenizer=None, batch_size=100, **more) -> list[dict]:
    evaluate(
        model=model, tokenizer=tokenizer or getattr(model, "tokenizer", TOKENIZER), protocol=settings, rows=rows,
        folder=folder, batch_size=batch_size, permissions=Permissions(), **more,
    )  # fmt: skip
    found = {record["item_id"]: record for record in read_items(folder)}
    return [found[row["id"]] for row in rows]


def by_letter(settings: Protocol, rows, letters, folder) -> list[dict]:
    """Records of a model that is certain of these letters."""
    prompts = [prompt_of(settings, row) for row in rows]
    return run(settings, rows, LetterOracle(dict(zip(prompts, letters, strict=True))), folder)


def correct(records: list[dict], score: str = "acc") -> float:
    return sum(record["scores"][score] for record in records)


# Models whose answers are known


@pytest.mark.parametrize("template", ["raw", "alpaca"])
@pytest.mark.parametrize("subject", ["tides", None])
def test_knowing_every_letter_scores_100_and_a_letter_for_all_its_share(template, subject, tmp_path):
    benchmark = "mmlu" if subject else "commonsenseqa"
    choices = LETTERS[: 4 if subject else 5]
    rows = [quiz(n, random.Random(n).choice(choices), subject=subject) for n in range(60)]
    gold = [row["answer"] for row in rows]
    settings = protocol(benchmark, template=template)
    records = by_letter(settings, rows, gold, tmp_path / "gold")
    assert correct(records) == len(rows)
    assert [record["gold"] for record in records] == [record["parsed"] for record in records] == gold
    assert all(list(record["loglikelihoods"]) == list(choices) for record in records)
    assert [record.get("subject") for record in records] == [subject] * len(rows)
    for letter in choices:
        assert correct(by_letter(settings, rows, letter * len(rows), tmp_path / letter)) == gold.count(letter)
    shuffled = random.Random(1).sample(gold, len(gold))
    found = correct(by_letter(settings, rows, shuffled, tmp_path / "shuffled"))
    assert found == sum(a == b for a, b in zip(shuffled, gold, strict=True))
    assert 0 < found < len(rows)


@pytest.mark.real_data
@pytest.mark.parametrize(("benchmark", "items", "subjects"), [("mmlu", 14_042, 57), ("commonsenseqa", 1_221, 1)])
def test_the_gold_letters_of_all_real_items_score_100(benchmark, items, subjects, real_data, tmp_path):
    rows = load_rows(benchmark, "test", root=real_data)
    records = by_letter(protocol(benchmark, template="raw"), rows, [row["answer"] for row in rows], tmp_path)
    assert len(records) == correct(records) == items
    assert len({record.get("subject") for record in records}) == subjects


@pytest.mark.real_data
@pytest.mark.parametrize(("benchmark", "step"), [("mmlu", 40), ("commonsenseqa", 4)])
def test_one_letter_for_all_and_shuffled_letters_score_their_share_of_real_items(benchmark, step, real_data, tmp_path):
    settings = protocol(benchmark, template="raw")
    every = load_rows(benchmark, "test", root=real_data)[::step]
    rows = list({prompt_of(settings, row): row for row in every}.values())  # mmlu asks some questions twice
    gold = [row["answer"] for row in rows]
    shuffled = random.Random(2).sample(gold, len(gold))
    for name, letters in (("A", "A" * len(rows)), ("shuffled", shuffled)):
        found = correct(by_letter(settings, rows, letters, tmp_path / name))
        assert found == sum(a == b for a, b in zip(letters, gold, strict=True))
        assert 0.15 < found / len(rows) < 0.3


# What is asked


ROW = quiz(7, "C")
EVERYDAY = quiz(7, "E", subject=None)


def test_the_training_template_has_the_question_as_instruction_and_the_choices_as_input():
    for benchmark, row in (("mmlu", ROW), ("commonsenseqa", EVERYDAY)):
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False)]
        assert eval_prompt(benchmark, row) == render(row["question"], "\n".join(lines))
        assert eval_answer(benchmark, row) == row["answer"]


def official(name: str, folder: str, documents: dict, **changes) -> list[str]:
    """The contexts that lm-eval's own task builds from documents in the hub's fields."""
    home = Path(lm_eval.__file__).parent / "tasks" / folder
    config = yaml.safe_load((home / name).read_text())
    if include := config.pop("include", None):
        config = yaml.safe_load((home / include).read_text()) | config
    for ours in ("tag", "dataset_name", "dataset_path", "metadata"):
        config.pop(ours, None)
    config |= {"custom_dataset": lambda **_: documents} | changes
    (task,) = TaskManager(include_defaults=False).load([config])["tasks"].values()
    task.build_all_requests(limit=None, rank=0, world_size=1)
    return [(instance.args[0], instance.args[1]) for instance in task.instances]


@pytest.mark.parametrize("shots", [0, 5])
def test_raw_mmlu_is_asked_in_the_very_words_of_lm_evals_task(shots, tmp_path):
    from datasets import Dataset

    rows = [quiz(n, "B", subject="abstract_algebra") for n in range(2)]
    pool = [quiz(n, "ABCD"[n % 4], split="dev", subject="abstract_algebra") for n in range(6)]
    documents = {
        split: Dataset.from_list([row | {"answer": LETTERS.index(row["answer"])} for row in some])
        for split, some in (("test", rows), ("dev", pool))
    }
    theirs = official("mmlu_abstract_algebra.yaml", "mmlu/default", documents, num_fewshot=shots)
    seen = asked_texts(protocol(template="raw", num_fewshot=shots), rows, pool, tmp_path)
    assert [(text, " " + letter) for text in seen for letter in "ABCD"] == theirs


@pytest.mark.parametrize("shots", [0, 5])
def test_raw_commonsenseqa_is_asked_in_the_very_words_of_lm_evals_task(shots, tmp_path):
    from datasets import Dataset

    rows = [quiz(n, "E", subject=None) for n in range(2)]
    pool = [quiz(n, "ABCDE"[n % 5], split="train", subject=None) for n in range(6)]
    documents = {
        split: Dataset.from_list([
            {"question": row["question"], "answerKey": row["answer"],
             "choices": {"label": list(LETTERS), "text": row["choices"]}} for row in some
        ])
        for split, some in (("validation", rows), ("train", pool))
    }  # fmt: skip
    theirs = official(
        "default.yaml", "commonsense_qa", documents, num_fewshot=shots, fewshot_config={"sampler": "first_n"}
    )
    seen = asked_texts(protocol("commonsenseqa", template="raw", num_fewshot=shots), rows, pool, tmp_path)
    assert [(text, " " + letter) for text in seen for letter in LETTERS] == theirs


def asked_texts(settings: Protocol, rows, pool, folder, *, tokenizer=TOKENIZER, **config) -> list[str]:
    """The prompts that an evaluation puts to a model, in the order of the rows; read off what the model is given."""
    model, texts = small_model(vocab_size=len(tokenizer), **config), {}

    def note(_, args, kwargs):
        for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True):
            text = tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
            texts[text.rstrip(" ") if settings.template == "raw" else text] = None

    model.register_forward_pre_hook(note, with_kwargs=True)
    run(settings, rows, model, folder, tokenizer=tokenizer, fewshot_rows=pool)
    own = [eval_prompt(settings.benchmark, row, settings.template) for row in rows]
    return [next(text for text in texts if text.endswith(one)) for one in own]


def test_examples_are_the_first_of_the_questions_own_subject_and_never_the_question_itself(tmp_path):
    rows = [quiz(0, subject="tides"), quiz(1, subject="winds")]
    pool = [quiz(n, subject=subject, split="dev") for n in (3, 4, 5) for subject in ("winds", "tides")]
    settings = protocol(num_fewshot=2)
    for text, row in zip(asked_texts(settings, rows, [*rows, *pool], tmp_path), rows, strict=True):
        shown = [quiz(n, subject=row["subject"], split="dev") for n in (3, 4)]
        assert text == "".join(eval_prompt("mmlu", one) + "A\n\n" for one in shown) + eval_prompt("mmlu", row)
    with pytest.raises(ValueError, match=r"num_fewshot=4 needs as many worked examples and got 3 for test/tides/0"):
        asked_texts(protocol(num_fewshot=4), rows, pool, tmp_path / "few")


@pytest.mark.parametrize("scoring", ["likelihood", "generated"])
def test_examples_that_do_not_fit_are_dropped_and_the_record_says_how_many_are_left(scoring, tmp_path):
    tokenizer, settings = bpe(), protocol(scoring=scoring, num_fewshot=5)
    pool = [quiz(n, split="dev") for n in range(3, 8)]

    def length(count: int, row: dict) -> int:
        shown = "".join(eval_prompt("mmlu", one) + "A\n\n" for one in pool[:count])
        return len(tokenizer(shown + eval_prompt("mmlu", row))["input_ids"])

    room = length(5, quiz(0))
    longer = [quiz(1) | {"question": "Think." * times + " Which is 1?"} for times in range(400)]
    rows = [quiz(0)] + [
        next(row | {"id": f"test/{count}"} for row in longer if length(count, row) <= room < length(count + 1, row))
        for count in (3, 0)
    ]
    reserve = 200 if scoring == "generated" else 4
    model = small_model(vocab_size=len(tokenizer), max_position_embeddings=room + reserve)
    records = run(settings, rows, model, tmp_path, tokenizer=tokenizer, fewshot_rows=pool)
    assert [record["shots"] for record in records] == [5, 3, 0]


def test_a_question_that_does_not_fit_by_itself_is_refused_and_never_cut(tmp_path):
    model = small_model(max_position_embeddings=60)
    with pytest.raises(ValueError, match=r"exceeds the model's context of 60"):
        run(protocol(num_fewshot=1), [quiz(0)], model, tmp_path, fewshot_rows=[quiz(1, split="dev")])


def test_without_examples_a_record_counts_none(tmp_path):
    assert "shots" not in by_letter(protocol(), [ROW], ["C"], tmp_path)[0]


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
    settings = protocol(benchmark, scoring="generated")
    answers = {prompt_of(settings, row): reading[0] for row, reading in zip(rows, READINGS, strict=True)}
    records = run(settings, rows, Oracle(answers), tmp_path)
    assert [(r["raw"], r["parsed"]["strict"], r["parsed"]["flexible"]) for r in records] == READINGS
    for record in records:
        assert record["scores"] == {name: float(letter == "B") for name, letter in record["parsed"].items()}
        assert record["gold"] == "B"


def test_what_a_model_asks_itself_after_its_answer_is_no_part_of_it(tmp_path):
    settings = protocol(scoring="generated")
    answers = {prompt_of(settings, ROW): "It must be C\n### Instruction:\nAnswer: A"}
    assert run(settings, [ROW], Oracle(answers), tmp_path)[0]["parsed"] == {"strict": "[INVALID]", "flexible": "C"}


# Resuming


class Stopped(Exception):
    pass


@pytest.mark.parametrize("scoring", ["likelihood", "generated"])
def test_a_record_file_that_was_cut_is_seen_and_its_tail_alone_is_asked_again(scoring, tmp_path):
    def stop(done, total):
        if done >= 8:
            raise Stopped

    settings = protocol(scoring=scoring, **{"max_new_tokens": 4} if scoring == "generated" else {})
    rows, model = [quiz(n) for n in range(11)], small_model()
    run(settings, rows, model, tmp_path / "whole", batch_size=4)
    with pytest.raises(Stopped):
        run(settings, rows, model, tmp_path / "cut", batch_size=4, progress=stop)
    path = tmp_path / "cut" / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-25])
    seen = []
    run(settings, rows, model, tmp_path / "cut", batch_size=4, progress=lambda done, total: seen.append(done))
    assert seen == [8, 11]  # the first batch is whole; of the second one line was lost
    for name in ("meta.json", "items.jsonl", "DONE"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_records_of_another_protocol_or_version_are_never_mixed_in(tmp_path):
    rows, model = [quiz(n) for n in range(3)], small_model()
    pool = [quiz(9, split="dev")]
    run(protocol(), rows, model, tmp_path)
    others = [{"protocol_version": 2}, {"template": "raw"}, {"num_fewshot": 1},
              {"scoring": "generated", "max_new_tokens": 4}]  # fmt: skip
    for changes in others:
        with pytest.raises(ValueError, match="another protocol or data"):
            run(protocol(**changes), rows, model, tmp_path, fewshot_rows=pool)


def test_a_protocol_under_another_name_is_the_same_evaluation(tmp_path):
    rows = [quiz(n) for n in range(3)]
    run(protocol(name="likelihood_0shot"), rows, small_model(), tmp_path)
    assert run(protocol(name="zero"), rows, None, tmp_path)
    assert json.loads((tmp_path / "meta.json").read_text())["protocol"]["name"] == "likelihood_0shot"


# Settings, and the tiny world's own sets


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scoring": "guess"}, "scoring='guess' is none of generated, likelihood"),
        ({"max_new_tokens": 8}, "max_new_tokens=8 does not go with scoring='likelihood'"),
        ({"scoring": "generated", "max_new_tokens": None}, "max_new_tokens=None does not go with scoring='generated'"),
        ({"template": "chat"}, "mmlu has no template 'chat': choose one of raw, alpaca"),
        ({"scoring": "generated", "max_new_tokens": 8, "temperature": 0.5}, "mmlu has no temperature=0.5"),
        ({"judge": "prefix"}, "mmlu has no judge='prefix'"),
        ({"benchmark": "gsm8k"}, "gsm8k has no scoring='likelihood'"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Protocol(**{"benchmark": "mmlu", "protocol_version": 1, "scoring": "likelihood"} | changes)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_tiny_worlds_sets_are_read_from_the_same_layout_and_known_letters_score_100(benchmark, tmp_path):
    from idlora import tinyworld

    root = tinyworld.export(tmp_path / "world")
    rows, pool = load_rows(benchmark, "test", root=root), load_shown(benchmark, root=root)
    assert len(rows) >= 100
    assert not {row["question"] + str(row["choices"]) for row in rows} & {
        r["question"] + str(r["choices"]) for r in pool
    }
    records = by_letter(protocol(benchmark), rows, [row["answer"] for row in rows], tmp_path / "gold")
    assert correct(records) == len(rows)
    if benchmark == "mmlu":
        per_subject = collections.Counter(row["subject"] for row in pool)
        assert set(per_subject) == {row["subject"] for row in rows}
        assert min(per_subject.values()) >= 5
