"""Benchmarks as files: which there are, a file of one's own, and the protocols that they refuse."""

import json
from pathlib import Path

import pytest
from steps import scored

from reproduction.evals import Protocol
from reproduction.evals.task import Task, file_digest, load_part, load_task, names

OWN = """
from __future__ import annotations

import dataclasses

from reproduction.data import DatasetSpec
from reproduction.evals.task import Task


@dataclasses.dataclass
class Capitals(Task):
    data: DatasetSpec = dataclasses.field(default_factory=lambda: DatasetSpec("capitals", ("country",), {}))

    def instruction(self, row):
        return row["country"], ""

    def read(self, row, raw):
        return {"parsed": raw, "gold": "Lima", "scores": {"exact": float(raw == "Lima")}, "length": len(raw)}


TASK = Capitals()
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "capitals.py"
    path.write_text(OWN)
    return path


def test_benchmarks_and_judges_are_what_lies_in_their_folders():
    assert names() == [
        "commonsenseqa", "gsm8k", "harmless_prompts", "heldout", "hexphi", "hexphi_benign", "humaneval", "mmlu",
        "safety_prompts",
    ]  # fmt: skip
    assert all(isinstance(load_task(name), Task) for name in names())
    assert "prefix" in names("judges")
    assert callable(load_part("judges", "prefix").refuses)


def test_a_file_of_ones_own_is_a_benchmark_and_its_content_part_of_what_is_asked(own, tmp_path):
    settings = {"benchmark": "capitals", "protocol_version": 1, "file": own, "max_new_tokens": 8}
    rows = [{"id": str(n), "country": "Peru"} for n in range(2)]
    found = scored(Protocol(**settings), rows, ["Lima", "Quito"], tmp_path)
    assert [(r["parsed"], r["scores"], r["length"]) for r in found] == [
        ("Lima", {"exact": 1}, 4),
        ("Quito", {"exact": 0}, 5),
    ]
    assert json.loads((tmp_path / "eval" / "meta.json").read_text())["protocol"]["file"] == str(own)
    before = Protocol(**settings).identity
    moved = own.rename(tmp_path / "moved.py")
    assert Protocol(**settings | {"file": moved}).identity == before
    moved.write_text(OWN + "\n# another\n")
    assert Protocol(**settings | {"file": moved}).identity == before | {"file": file_digest(moved)} != before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"the benchmark capitals has file=.*capitals\.py, which is no \.py file"),
        ("TASK = 3\n", r"capitals\.py has no benchmark: end it in TASK = "),
        ("x = 1\n", r"capitals\.py has no benchmark: end it in TASK = "),
        ("def f(:\n", r"capitals\.py cannot be loaded \(SyntaxError: invalid syntax .*line 1"),
        ("import nowhere_at_all\n", r"capitals\.py cannot be loaded \(ModuleNotFoundError: No module named 'nowhere"),
    ],
)
def test_a_file_that_is_no_benchmark_is_refused_in_a_sentence_that_names_it(text, sentence, tmp_path):
    path = tmp_path / "capitals.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        load_task("capitals", path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"benchmark": "gsm9k"}, "'gsm9k' is none of the tasks: choose one of commonsenseqa, gsm8k"),
        ({"benchmark": "hexphi"}, "hexphi needs a judge: one of prefix"),
        ({"benchmark": "hexphi", "judge": "gpt"}, "'gpt' is none of the judges"),
        ({"benchmark": "humaneval", "num_fewshot": 3}, "humaneval has no num_fewshot=3"),
        ({"benchmark": "humaneval", "samples": 10}, "samples=10 of greedy decoding are all the same"),
        ({"samples": 5, "temperature": 0.5}, "gsm8k has no samples=5"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"top_p": 0.0}, "top_p=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"limit": 0}, "limit=0"),
        ({"execution_seconds": 0.0}, "execution_seconds=0"),
        ({"layout": "raw"}, "gsm8k has no layout 'raw': choose one of template"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused_with_the_value_and_the_way_out(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Protocol(**{"benchmark": "gsm8k", "protocol_version": 1, "max_new_tokens": 8} | changes)


def test_records_hold_hashes_of_item_and_prompt(tmp_path):
    rows = [{"id": f"test/{n}", "question": "One?", "answer": f"#### {n}"} for n in (1, 2)]
    settings = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=8)
    first, second = scored(settings, rows, ["1", "1"], tmp_path)
    assert first["prompt_hash"] == second["prompt_hash"]
    assert first["item_hash"] != second["item_hash"]
