"""The world's data sets written as files, in the layout in which local copies of the public ones are read.

    gsm8k/{train,test}.jsonl  codealpaca/code_alpaca_20k.json  humaneval/HumanEval.jsonl  alpaca/alpaca.json
    saferpaca/saferpaca_Instructions_2000.json  {hexphi,hexphi_benign}/category_{1,3,…,11}.csv
    mmlu/{dev,test}/SUBJECT_{dev,test}.csv  commonsenseqa/{train,validation}.jsonl  manifest.json

The test rows of gsm8k and humaneval carry two more keys than the originals': `structure` and `novel`.
"""

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from reproduction.system.atomic import written_whole
from reproduction.tinyworld import chores, law, problems, programs, quizzes
from reproduction.tinyworld.lexicon import Item
from reproduction.tinyworld.quizzes import Quiz

MANIFEST = "manifest.json"
MMLU_ITEMS = 20
"""Test items a subject."""

COMMONSENSEQA_ITEMS = 120
SHOTS = 5


def export(root: Path) -> Path:
    """Write every data set under `root` and return it; a file that is there already and equal is left alone.

    Deterministic. `manifest.json` holds the sha256 of each file. Left out: removing files that are not the world's.

    Raises `NotWritten` where the disk is full.
    """
    root = Path(root)
    digests = {}
    for name, text in _files():
        data = text.encode()
        digests[name] = hashlib.sha256(data).hexdigest()
        _write_if_changed(root, name, data)
    _write_if_changed(root, MANIFEST, (json.dumps(digests, indent=2) + "\n").encode())
    return root


def _write_if_changed(root: Path, name: str, data: bytes) -> None:
    path = root / name
    if not path.is_file() or path.read_bytes() != data:
        with written_whole(path, root) as file:  # in its folder it would be taken for one of the world's
            file.write(data)


def _files() -> Iterator[tuple[str, str]]:
    yield "gsm8k/train.jsonl", _jsonl(item.row for item in problems.for_training())
    yield "gsm8k/test.jsonl", _jsonl(_flagged(item) for item in problems.for_testing())
    yield "codealpaca/code_alpaca_20k.json", _json(programs.for_training())
    yield "humaneval/HumanEval.jsonl", _jsonl(_flagged(item) for item in programs.for_testing())
    yield "alpaca/alpaca.json", _json(_alpaca())
    yield "saferpaca/saferpaca_Instructions_2000.json", _json(law.for_training())
    for name, (forbidden, allowed) in law.for_testing().items():
        yield f"hexphi/{name}", _csv(forbidden)
        yield f"hexphi_benign/{name}", _csv(allowed)
    for name, facts in quizzes.SUBJECTS.items():
        yield f"mmlu/dev/{name}_dev.csv", _mmlu(quizzes.examples(facts, SHOTS, choices=4))
        yield f"mmlu/test/{name}_test.csv", _mmlu(quizzes.for_testing(facts, MMLU_ITEMS, choices=4))
    everyday = quizzes.EVERYDAY
    yield "commonsenseqa/train.jsonl", _jsonl(_commonsenseqa(quizzes.examples(everyday, SHOTS, choices=5), "train"))
    tested = quizzes.for_testing(everyday, COMMONSENSEQA_ITEMS, choices=5)
    yield "commonsenseqa/validation.jsonl", _jsonl(_commonsenseqa(tested, "validation"))


def _alpaca() -> list[Item]:
    """Chores and quizzes, mixed."""
    items = [*chores.chores(), *quizzes.for_training()]
    random.Random(52).shuffle(items)
    return items


def _mmlu(asked: list[Quiz]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question", *(f"choice{index}" for index in range(4)), "answer"])
    writer.writerows([quiz.question, *quiz.choices, quiz.gold] for quiz in asked)
    return text.getvalue()


def _commonsenseqa(asked: list[Quiz], split: str) -> Iterator[dict]:
    for index, quiz in enumerate(asked):
        labels = list(quizzes.LETTERS)
        yield {
            "id": f"{split}-{index}",
            "question": quiz.question,
            "question_concept": "",
            "choices": {"label": labels, "text": list(quiz.choices)},
            "answerKey": labels[quiz.gold],
        }


def _flagged(item: Item) -> dict[str, str | bool]:
    return {**item.row, "structure": item.structure, "novel": item.novel}


def _jsonl(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _json(items: list[Item]) -> str:
    return json.dumps([item.row for item in items], indent=1) + "\n"


def _csv(items: list[Item]) -> str:
    """One column without a header, as HEx-PHI's files are."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([item.row["prompt"]] for item in items)
    return text.getvalue()
