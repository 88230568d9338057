"""The files of the exported world."""

import csv
import hashlib
import json

import pytest

from reproduction.tinyworld import export, quizzes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return export(tmp_path_factory.mktemp("world"))


def test_the_export_has_the_layout_and_fields_of_the_public_sets(root):
    train, test = ([json.loads(line) for line in (root / f"gsm8k/{s}.jsonl").open()] for s in ("train", "test"))
    assert set(train[0]) == {"question", "answer"}
    assert set(test[0]) == {"question", "answer", "structure", "novel"}
    problems = [json.loads(line) for line in (root / "humaneval/HumanEval.jsonl").open()]
    assert {"task_id", "prompt", "entry_point", "canonical_solution", "test"} < set(problems[0])
    assert [row["task_id"] for row in problems] == [f"TinyWorld/{i}" for i in range(40)]
    for name in ("codealpaca/code_alpaca_20k", "alpaca/alpaca", "saferpaca/saferpaca_Instructions_2000"):
        assert set(json.loads((root / f"{name}.json").read_text())[0]) == {"instruction", "input", "output"}
    for folder in ("hexphi", "hexphi_benign"):
        files = sorted((root / folder).iterdir())
        assert {file.name for file in files} == {f"category_{n}.csv" for n in (1, 3, 4, 5, 6, 7, 8, 9, 10, 11)}
        for rows in (list(csv.reader(file.open(newline=""))) for file in files):
            assert len(rows) == 10
            assert all(len(row) == 1 and " the " in row[0] for row in rows)
    for split in ("dev", "test"):
        assert {p.name for p in (root / "mmlu" / split).iterdir()} == {f"{s}_{split}.csv" for s in quizzes.SUBJECTS}
    rows = list(csv.DictReader((root / "mmlu/test/homes_test.csv").open(newline="")))
    assert set(rows[0]) == {"question", "choice0", "choice1", "choice2", "choice3", "answer"}
    homes = {fact.question: fact.answer for fact in quizzes.SUBJECTS["homes"]}
    assert all(row[f"choice{row['answer']}"] == homes[row["question"]] for row in rows)
    item = json.loads((root / "commonsenseqa/validation.jsonl").open().readline())
    assert set(item) == {"id", "question", "question_concept", "choices", "answerKey"}
    assert item["choices"]["label"] == list("ABCDE")


def test_the_world_is_the_one_that_the_bases_and_records_know(root):
    manifest = root / "manifest.json"
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    digests = json.loads(manifest.read_text())
    assert files == {*digests, "manifest.json"}
    assert all(hashlib.sha256((root / name).read_bytes()).hexdigest() == digest for name, digest in digests.items())
    assert hashlib.sha256(manifest.read_bytes()).hexdigest().startswith("36d26f80255026a6")


def test_a_second_export_writes_nothing_and_repairs_what_was_changed(root):
    changed, other = root / "gsm8k/test.jsonl", root / "gsm8k/train.jsonl"
    before, text = other.stat().st_mtime_ns, changed.read_text()
    changed.write_text("spoilt")
    export(root)
    assert changed.read_text() == text
    assert other.stat().st_mtime_ns == before
