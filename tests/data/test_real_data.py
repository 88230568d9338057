from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer

from reproduction.cells.resolve_paths import datasets
from reproduction.data import DataError, load_mixture, load_rows, mixture_examples, pack, to_examples, tokenize
from reproduction.evals.task import load_task

pytestmark = pytest.mark.real_data


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("gsm8k", "train", 7473),
        ("gsm8k", "test", 1319),
        ("codealpaca", "train", 20022),
        ("alpaca", "train", 13354),
        ("humaneval", "test", 164),
        ("mmlu", "test", 14_042),
        ("mmlu", "dev", 285),
        ("commonsenseqa", "test", 1_221),
    ],
)
def test_every_row_of_the_real_files_is_read(name, split, count, real_data):
    rows = load_rows(datasets()[name], split, root=real_data)
    assert len(rows) == count
    assert len({row["id"] for row in rows}) == count


def test_mmlu_has_57_subjects_with_five_examples_each_and_commonsenseqa_its_own_examples(real_data):
    subjects = {row["subject"] for row in load_rows(load_task("mmlu").data, "test", root=real_data)}
    shown = [row["subject"] for row in load_task("mmlu").examples(root=real_data)]
    assert len(subjects) == 57
    assert sorted(shown) == sorted(5 * list(subjects))
    assert len(load_task("commonsenseqa").examples(root=real_data)) >= 6


def test_every_gsm8k_answer_ends_in_its_number(real_data):
    for split in ("train", "test"):
        assert all("\n#### " in row["answer"] for row in load_rows("gsm8k", split, root=real_data))


def test_no_real_codealpaca_prompt_says_noinput(real_data):
    rows = load_rows("codealpaca", "train", root=real_data)
    assert not any(row["input"].strip().lower() == "noinput" for row in rows)
    assert sum(not row["input"] for row in rows) > 8000


@pytest.fixture
def with_cleaned(real_data, tmp_path) -> Path:
    """The real safety rows beside CodeAlpaca's in the place of alpaca-cleaned's, which has the same columns."""
    (tmp_path / "saferpaca").symlink_to(real_data / "saferpaca")
    (tmp_path / "alpaca_cleaned").symlink_to(real_data / "codealpaca")
    return tmp_path


def test_the_real_safety_rows_are_completed_and_never_trained_on_alone(real_data, with_cleaned):
    with pytest.raises(DataError, match="safety rows alone"):
        load_rows("saferpaca", "train", root=real_data)
    examples = to_examples("saferpaca", load_rows("saferpaca", "train", root=with_cleaned))
    tokenized = tokenize(examples[::25], byte_tokenizer(), max_length=4096)
    assert len(examples) == 22_000
    assert tokenized.report()["sources"]["safety/train"] == 80


@pytest.mark.parametrize(("name", "empty"), [("gsm8k", 0), ("codealpaca", 6), ("alpaca", 5)])
def test_real_training_sets_tokenize_with_every_example_accounted_for(name, empty, real_data):
    every = to_examples(name, load_rows(name, "train", root=real_data))
    examples = [example for index, example in enumerate(every) if index % 25 == 0 or not example.response]
    tokenized = tokenize(examples, byte_tokenizer(), max_length=4096)
    assert tokenized.dropped_empty == empty
    assert len(tokenized) + tokenized.dropped_empty + tokenized.dropped_long == len(examples)
    by_id = {example.id: example for example in examples}
    for row, example_id in zip(tokenized.rows, tokenized.ids, strict=True):
        prompt, response = by_id[example_id].prompt.encode(), by_id[example_id].response.encode()
        scored = sum(label != -100 for label in row["labels"])
        assert scored == min(len(response) + 1, 4096 - len(prompt))


def test_the_real_mixture_packs_into_a_third_of_the_rows_and_fills_them(real_data):
    rows = load_mixture({"alpaca": 1.0, "gsm8k": 1.0, "codealpaca": 0.5}, root=real_data)[::10]
    alone = tokenize(mixture_examples(rows), byte_tokenizer(), max_length=4096)
    packed = pack(alone, 4096)
    assert sorted(packed.ids) == sorted(alone.ids)
    assert len(packed) < len(alone) / 3
    assert packed.report()["fill_share"] > 0.95
