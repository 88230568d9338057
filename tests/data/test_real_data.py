"""The public data sets themselves: every row is read, and every example accounted for."""

from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer

from reproduction.cells.resolve_paths import datasets
from reproduction.data import DataError, load_mixture, load_rows, mixture_examples, pack, to_examples, tokenize
from reproduction.evals.task import load_task

pytestmark = pytest.mark.real_data

COUNTS = {
    ("gsm8k", "train"): 7473, ("gsm8k", "test"): 1319, ("codealpaca", "train"): 20022, ("alpaca", "train"): 13354,
    ("humaneval", "test"): 164, ("mmlu", "test"): 14_042, ("mmlu", "dev"): 285, ("commonsenseqa", "test"): 1_221,
}  # fmt: skip


def test_every_row_of_the_real_files_is_read(real_data):
    found = {key: load_rows(datasets()[key[0]], key[1], root=real_data) for key in COUNTS}
    assert {key: len({row["id"] for row in rows}) for key, rows in found.items()} == COUNTS
    assert all("\n#### " in row["answer"] for split in ("train", "test") for row in found["gsm8k", split])
    assert not any(row["input"].strip().lower() == "noinput" for row in found["codealpaca", "train"])
    subjects = {row["subject"] for row in found["mmlu", "test"]}
    assert len(subjects) == 57
    assert sorted(row["subject"] for row in found["mmlu", "dev"]) == sorted(5 * list(subjects))
    assert len(load_task("commonsenseqa").examples(root=real_data)) >= 6


def test_the_real_safety_rows_are_completed_and_never_trained_on_alone(real_data, tmp_path):
    with pytest.raises(DataError, match="safety rows alone"):
        load_rows("saferpaca", "train", root=real_data)
    (tmp_path / "saferpaca").symlink_to(real_data / "saferpaca")
    (tmp_path / "alpaca_cleaned").symlink_to(real_data / "codealpaca")  # which has the same columns
    examples = to_examples("saferpaca", load_rows("saferpaca", "train", root=tmp_path))
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
        assert sum(label != -100 for label in row["labels"]) == min(len(response) + 1, 4096 - len(prompt))


def test_the_real_mixture_is_alpaca_gsm8k_and_half_of_codealpaca_and_fills_its_packs(real_data: Path) -> None:
    parts = {"alpaca": 1.0, "gsm8k": 1.0, "codealpaca": 0.5}
    rows = load_mixture(parts, root=real_data)
    counts = {part: sum(row["part"] == part for row in rows) for part in parts}
    assert counts == {"alpaca": 13354, "gsm8k": 7473, "codealpaca": 20022 // 2}
    alone = tokenize(mixture_examples(rows[::10]), byte_tokenizer(), max_length=4096)
    packed = pack(alone, 4096)
    assert sorted(packed.ids) == sorted(alone.ids)
    assert len(packed) < len(alone) / 3
    assert packed.report()["fill_share"] > 0.95
