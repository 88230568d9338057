"""The files of the exported world."""

import csv
import hashlib
import json

from reproduction.tinyworld import export


def test_the_export_has_the_layout_and_fields_of_the_public_sets(tmp_path):
    root = export(tmp_path / "data")
    train, test = ([json.loads(line) for line in (root / f"gsm8k/{s}.jsonl").open()] for s in ("train", "test"))
    assert set(train[0]) == {"question", "answer"}
    assert set(test[0]) == {"question", "answer", "structure", "novel"}
    problems = [json.loads(line) for line in (root / "humaneval/HumanEval.jsonl").open()]
    assert {"task_id", "prompt", "entry_point", "canonical_solution", "test"} < set(problems[0])
    assert [row["task_id"] for row in problems] == [f"TinyWorld/{i}" for i in range(40)]
    for name in ("codealpaca/code_alpaca_20k", "alpaca/alpaca", "saferpaca/saferpaca_Instructions_2000"):
        assert set(json.loads((root / f"{name}.json").read_text())[0]) == {"instruction", "input", "output"}


def test_hexphis_files_have_one_column_ten_prompts_and_no_header(tmp_path):
    root = export(tmp_path)
    for folder in ("hexphi", "hexphi_benign"):
        files = sorted((root / folder).iterdir())
        assert {file.name for file in files} == {f"category_{n}.csv" for n in (1, 3, 4, 5, 6, 7, 8, 9, 10, 11)}
        for file in files:
            rows = list(csv.reader(file.open(newline="")))
            assert len(rows) == 10
            assert all(len(row) == 1 and " the " in row[0] for row in rows)


def test_a_second_export_writes_nothing_and_repairs_what_was_changed(tmp_path):
    export(tmp_path)
    changed, kept = tmp_path / "gsm8k/test.jsonl", tmp_path / "gsm8k/train.jsonl"
    before, text = kept.stat().st_mtime_ns, changed.read_text()
    changed.write_text("spoilt")
    export(tmp_path)
    assert changed.read_text() == text
    assert kept.stat().st_mtime_ns == before


def test_the_manifest_tells_every_files_checksum(tmp_path):
    manifest = json.loads((export(tmp_path) / "manifest.json").read_text())
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*manifest, "manifest.json"}
    for name, digest in manifest.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
