"""Export of the world's data sets, in the layout of local copies of the public ones.

    gsm8k/{train,test}.jsonl  codealpaca/code_alpaca_20k.json  humaneval/HumanEval.jsonl  alpaca/alpaca.json
    saferpaca/saferpaca_Instructions_2000.json  {hexphi,hexphi_benign}/category_{1,3,…,11}.csv
    mmlu/{dev,test}/SUBJECT_{dev,test}.csv  commonsenseqa/{train,validation}.jsonl  manifest.json

Test rows of gsm8k and humaneval have two extra keys: `structure` and `novel`.
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
from reproduction.tinyworld.quizzes import LETTERS, Quiz

MMLU_ITEMS = 20  # test items per subject
COMMONSENSEQA_ITEMS = 120
SHOTS = 5


def export(root: Path) -> Path:
    """Write every data set under `root` and return `root`; equal existing files are not rewritten.

    Deterministic. `manifest.json` holds the sha256 of each file. Raises `NotWritten` if the disk is full.
    """
    root = Path(root)
    digests = {}
    for name, text in _files():
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
        _write_if_changed(root, name, text.encode())
    _write_if_changed(root, "manifest.json", (json.dumps(digests, indent=2) + "\n").encode())
    return root


def _write_if_changed(root: Path, name: str, data: bytes) -> None:
    path = root / name
    if not path.is_file() or path.read_bytes() != data:
        with written_whole(path, root) as file:  # a temporary file in the data set's folder could be read as data
            file.write(data)


def _files() -> Iterator[tuple[str, str]]:
    yield "gsm8k/train.jsonl", _jsonl(item.row for item in problems.for_training())
    yield "gsm8k/test.jsonl", _jsonl(map(_flagged, problems.for_testing()))
    yield "codealpaca/code_alpaca_20k.json", _json(programs.for_training())
    yield "humaneval/HumanEval.jsonl", _jsonl(map(_flagged, programs.for_testing()))
    alpaca = [*chores.chores(), *quizzes.for_training()]
    random.Random(52).shuffle(alpaca)
    yield "alpaca/alpaca.json", _json(alpaca)
    yield "saferpaca/saferpaca_Instructions_2000.json", _json(law.for_training())
    for name, sides in law.for_testing().items():
        for folder, items in zip(("hexphi", "hexphi_benign"), sides, strict=True):
            yield f"{folder}/{name}", _csv([item.row["prompt"]] for item in items)  # no header, like the original
    for name, facts in quizzes.SUBJECTS.items():
        yield f"mmlu/dev/{name}_dev.csv", _mmlu(quizzes.examples(facts, SHOTS, choices=4))
        yield f"mmlu/test/{name}_test.csv", _mmlu(quizzes.for_testing(facts, MMLU_ITEMS, choices=4))
    everyday = quizzes.EVERYDAY
    yield "commonsenseqa/train.jsonl", _commonsenseqa(quizzes.examples(everyday, SHOTS, choices=5), "train")
    tested = quizzes.for_testing(everyday, COMMONSENSEQA_ITEMS, choices=5)
    yield "commonsenseqa/validation.jsonl", _commonsenseqa(tested, "validation")


def _mmlu(questions: list[Quiz]) -> str:
    header = ["question", *(f"choice{index}" for index in range(4)), "answer"]
    return _csv([header, *([quiz.question, *quiz.choices, quiz.gold] for quiz in questions)])


def _commonsenseqa(questions: list[Quiz], split: str) -> str:
    return _jsonl(
        {
            "id": f"{split}-{index}",
            "question": quiz.question,
            "question_concept": "",
            "choices": {"label": list(LETTERS), "text": list(quiz.choices)},
            "answerKey": LETTERS[quiz.gold],
        }
        for index, quiz in enumerate(questions)
    )


def _flagged(item: Item) -> dict[str, str | bool]:
    return {**item.row, "structure": item.structure, "novel": item.novel}


def _jsonl(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _json(items: list[Item]) -> str:
    return json.dumps([item.row for item in items], indent=1) + "\n"


def _csv(rows: Iterable[list]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
