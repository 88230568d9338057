"""Rows of every data set from folders: what is read, in which encodings, and what is refused with its place."""

import codecs
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reproduction.cells.resolve_paths import data_digest, datasets
from reproduction.data import DataError, DatasetSpec, load_rows, to_examples
from reproduction.data.files import read_column, read_table
from reproduction.data.sources import load_from_hub
from reproduction.evals.task import load_task
from reproduction.evals.tasks.hexphi import CATEGORIES, WITHDRAWN

GSM8K = [{"question": f"What is {n}+1?", "answer": f"<<{n}+1={n + 1}>>\n#### {n + 1}"} for n in range(5)]
ALPACA = [
    {"category": "code", "instruction": "Sort it.", "input": "noinput", "output": "\nsorted(x) "},
    {"category": "code", "instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Greet.", "output": "Hello."},
]
PROBLEM = {
    "task_id": "World/0", "prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n",
    "test": "def check(f):\n    assert f() == 1\n",
}  # fmt: skip
MMLU = 'question,choice0,choice1,choice2,choice3,answer\nOne?,1,2,3,4,0\n"Two, or\n2?",None,nan,  ,"b, ""c""",3\n'
QUIZ = [
    {"id": f"{n:032x}", "question": f"Where is {n}?", "question_concept": "place", "answerKey": key,
     "choices": {"label": list("ABCDE"), "text": ["here", "there", "up", "down", f"at {n}"]}}
    for n, key in enumerate("EBA")
]  # fmt: skip
TRAIN, CATEGORY, QUIZZES = "gsm8k/train.jsonl", "hexphi/category_7.csv", "commonsenseqa/train.jsonl"
SAFER, SAFETY = "saferpaca/saferpaca_Instructions_2000.json", "saferpaca/safety_only_data_Instructions.json"
SETS = datasets()


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def instructions(kind: str, count: int) -> str:
    return json.dumps([{"instruction": f"{kind} {n}", "input": "", "output": f"done {n}"} for n in range(count)])


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    alpaca = json.dumps(ALPACA)
    files = {
        TRAIN: jsonl(*GSM8K), "gsm8k/test.jsonl": jsonl(*GSM8K), "codealpaca/code.json": alpaca,
        "alpaca/part.json": alpaca, "alpaca_cleaned/cleaned.json": alpaca, SAFER: alpaca,
        SAFETY: json.dumps(ALPACA[::-1]), "humaneval/HumanEval.jsonl": jsonl(PROBLEM),
        QUIZZES: jsonl(*QUIZ[::-1]), "commonsenseqa/validation.jsonl": jsonl(*QUIZ),
        **{f"mmlu/{s}/{subject}_{s}.csv": MMLU for s in ("dev", "test") for subject in ("winds", "high_tides")},
        **{f"{name}/{each}.csv": f'{name} {each}\n"second, ""quoted""\nand long"\n'
           for name in ("hexphi", "hexphi_benign") for each in set(CATEGORIES) - {WITHDRAWN}},
    }  # fmt: skip
    for name, content in files.items():
        write(tmp_path / name, content)
    return tmp_path


@pytest.mark.parametrize("name", SETS)
def test_every_data_set_loads_from_a_folder_with_unique_ids_and_its_columns(name, root):
    rows = load_rows(SETS[name], next(iter(SETS[name].splits)), root=str(root))
    assert rows
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(set(SETS[name].columns) <= row.keys() for row in rows)


def test_rows_have_their_columns_their_place_and_their_words_as_the_source_has_them(root):
    def read(name: str, split: str = "test") -> list[dict]:
        return load_rows(SETS[name], split, root=root)

    assert read("gsm8k", "train")[3] == {"id": "train/3", **GSM8K[3]}
    code = read("codealpaca", "train")
    assert code[0] == {"id": "train/0", "instruction": "Sort it.", "input": "", "output": "\nsorted(x) "}
    assert [row["input"] for row in code] == ["", "1 and 2", ""]
    assert [example.response for example in to_examples("codealpaca", code)] == ["sorted(x)", "3", "Hello."]
    hexphi = read("hexphi")
    assert hexphi[0] == {"id": "category_1/0", "prompt": "hexphi category_1", "category": "category_1"}
    assert (len(hexphi), hexphi[1]["prompt"]) == (20, 'second, "quoted"\nand long')
    write(root / "hexphi" / f"{WITHDRAWN}.csv", "one more\n")
    assert [row["id"] for row in read("hexphi")][1:4] == ["category_1/1", "category_2/0", "category_3/0"]
    mmlu = read("mmlu")
    assert [row["id"] for row in mmlu] == [f"test/{s}/{n}" for s in ("high_tides", "winds") for n in range(2)]
    assert mmlu[3] == {
        "id": "test/winds/1", "subject": "winds", "question": "Two, or\n2?", "choices": ["None", "nan", "  ", 'b, "c"'],
        "answer": "D",
    }  # fmt: skip
    quiz = read("commonsenseqa")
    assert [(row["id"], row["answer"]) for row in quiz] == [(row["id"], row["answerKey"]) for row in QUIZ]
    assert quiz[2]["choices"] == ["here", "there", "up", "down", "at 2"]


def test_worked_examples_are_training_rows_and_where_there_are_none_validation_rows(root):
    assert load_task("gsm8k").examples(root=root) == load_rows("gsm8k", "train", root=root)
    assert {row["id"].split("/")[0] for row in load_task("mmlu").examples(root=root)} == {"dev"}
    task = load_task("commonsenseqa")
    assert task.examples(root=root)[0]["question"] == "Where is 2?"
    (root / QUIZZES).unlink()
    assert task.examples(root=root) == load_rows(task.data, "test", root=root)


def test_humaneval_comes_from_the_folder_and_without_it_from_its_package(root):
    spec = SETS["humaneval"]
    assert load_rows(spec, "test", root=root) == [{"id": "World/0", **PROBLEM}]
    own = data_digest(spec, root)
    (root / "humaneval" / "HumanEval.jsonl").unlink()
    rows = load_rows(spec, "test", root=root)
    assert (len(rows), rows[33]["id"]) == (164, "HumanEval/33")
    assert data_digest(spec, root) not in (own, "absent")


def test_a_set_that_its_own_file_brings_is_known_by_its_rows(root):
    def bringing(*capitals: str) -> DatasetSpec:
        raw = [{"country": capital[::-1], "capital": capital, "more": 1} for capital in capitals]
        return DatasetSpec("capitals", ("country", "capital"), {"test": "test"}, bundled=lambda: raw)

    spec = bringing("Oslo", "Rome")
    expected = {"id": "test/1", "country": "emoR", "capital": "Rome"}
    assert load_rows(spec, "test", root=None)[1] == load_rows(spec, "test", root=root)[1] == expected
    assert data_digest(spec, root) == data_digest(spec, None) != data_digest(bringing("Rome", "Oslo"), None)
    write(root / "capitals" / "test.jsonl", jsonl({"country": "France", "capital": "Paris"}))
    assert [row["capital"] for row in load_rows(spec, "test", root=root)] == ["Paris"]
    assert data_digest(spec, root) != data_digest(spec, None)


@pytest.mark.parametrize("name", ["gsm8k", "mmlu", "hexphi"])
def test_a_folder_is_known_by_the_content_of_all_its_files_and_a_hubs_set_by_its_revision(name, root):
    spec, before = SETS[name], data_digest(SETS[name], root)
    shutil.copytree(root / name, root / "elsewhere" / name)
    assert data_digest(spec, root / "elsewhere") == before
    for path in sorted(each for each in (root / name).rglob("*") if each.is_file()):
        text = path.read_text()
        path.write_text(text[::-1])
        assert data_digest(spec, root) != before
        path.write_text(text)
    assert data_digest(spec, root, revisions={name: "abc"}) == before
    assert data_digest(spec, root / "nowhere") == "absent"
    assert data_digest(spec, None) == f"{spec.hub_id}@main"
    assert data_digest(spec, None, revisions={name: "abc", "other": "def"}) == f"{spec.hub_id}@abc"


@pytest.mark.parametrize("name", ["gsm8k", "codealpaca", "commonsenseqa"])
def test_the_hub_and_the_folder_give_the_same_rows(name, root, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    write(root / "codealpaca" / "code.json", json.dumps([{"input": "", **row} for row in ALPACA]))
    spec = replace(SETS[name], hub_id=str(root / name), hub_config=None)  # `datasets` reads a folder as a repository
    for split in spec.splits:
        assert load_from_hub(spec, split, revision="main") == load_rows(SETS[name], split, root=root)


def test_safety_rows_alone_are_completed_by_alpaca_cleaned_and_refused_without(root):
    (root / SAFER).unlink()
    write(root / SAFETY, instructions("safety", 2_100))
    cleaned = root / "alpaca_cleaned" / "cleaned.json"
    write(cleaned, instructions("cleaned", 20_300))
    rows, digest = load_rows("saferpaca", "train", root=root), data_digest("saferpaca", root)
    assert [row["part"] for row in rows] == ["alpaca_cleaned"] * 20_000 + ["safety"] * 2_000
    assert len({row["id"] for row in rows}) == len(rows)
    assert [row["instruction"] for row in rows[20_000:]] != [f"safety {n}" for n in range(2_000)]
    write(cleaned, instructions("cleaned", 19_999))
    assert data_digest("saferpaca", root) != digest
    with pytest.raises(DataError, match=r"20000 rows of alpaca_cleaned, and .* has 19999"):
        load_rows("saferpaca", "train", root=root)
    shutil.rmtree(cleaned.parent)
    with pytest.raises(DataError, match=r"safety rows alone.*alpaca_cleaned"):
        load_rows("saferpaca", "train", root=root)


def test_the_assembled_file_and_the_safety_rows_stand_beside_each_other_as_two_sets(root):
    assert [row["instruction"] for row in load_rows("saferpaca", "train", root=root)] == ["Sort it.", "Add.", "Greet."]
    assert [row["instruction"] for row in load_rows("safety", "train", root=root)] == ["Greet.", "Add.", "Sort it."]
    safety, assembled = (data_digest(name, root) for name in ("safety", "saferpaca"))
    write(root / "alpaca_cleaned" / "cleaned.json", instructions("other", 3))
    assert data_digest("saferpaca", root) == assembled
    write(root / SAFER, instructions("other", 3))
    assert data_digest("safety", root) == safety != "absent"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (TRAIN, None, r"No file .*train\.jsonl"),
        (TRAIN, " \n", r"train\.jsonl is empty"),
        (TRAIN, jsonl(*GSM8K) + "{oops", r"Line 6 of .*train"),
        (TRAIN, "1\n" + "[" * 100_000, r"Line 2 of .*train"),
        (TRAIN, "[1]\n", r"Row 0 of .* is a list"),
        (TRAIN, jsonl(*GSM8K, {"question": "?", "reply": "1"}), r"Row 5 of .* no text in answer .*question, reply"),
        (TRAIN, json.dumps({"question": "a \ud83d", "answer": ""}), r"Row 0 of .*question: character 2, U\+D83D"),
        (TRAIN, codecs.BOM_UTF16_LE + jsonl(*GSM8K).encode("utf-16-le"), r"train\.jsonl is not UTF-8 at byte 0"),
        (TRAIN, jsonl({"question": "é"}).encode("latin-1"), r"train\.jsonl is not UTF-8 at byte 14"),
        ("alpaca/part.json", "{", r"part\.json is not JSON .*line 1"),
        ("alpaca/part.json", "{}", r"part\.json holds a dict"),
        ("alpaca/part.json", "[]", r"part\.json holds no rows"),
        ("alpaca/part.json", None, r"exactly one \.json file, and holds none"),
        ("alpaca/more.json", "[]", r"holds more\.json, part\.json"),
        ("mmlu/dev/a_dev.csv", MMLU.replace(",3\n", ",4\n"), r"answer 4 of 4"),
        ("mmlu/dev/a_dev.csv", MMLU + "Short?,1,2\n", r"Row 2 of .*is not as mmlu has them"),
        ("mmlu/dev/a_dev.csv", MMLU.replace("choice", "x"), r"of 0 choices"),
        (QUIZZES, jsonl(QUIZ[0] | {"answerKey": "F"}), r"Row 0 of .*not as commonsenseqa has them \(ValueError: 'F'"),
        (QUIZZES, jsonl({"question": "?"}), r"KeyError: 'choices'"),
        (CATEGORY, None, r"No file .*category_7\.csv"),
        (CATEGORY, "a\nb,c\n", r"Record 2 of .*has 2 columns"),
        (CATEGORY, 'a\n" "\n', r"Prompt 1 of category_7"),
        (CATEGORY, "a\0b\n", r"category_7\.csv has a null byte.* 1"),
    ],
)  # fmt: skip
def test_damaged_data_are_refused_with_the_place(file, content, sentence, root):
    spec = SETS[file.split("/")[0]]
    if content is None:
        (root / file).unlink()
    else:
        write(root / file, content)
    with pytest.raises(DataError, match=sentence):
        load_rows(spec, next(iter(spec.splits)), root=root)


def test_what_is_nowhere_is_named_with_what_there_is(tmp_path):
    for data, split, root, sentence in (
        ("gsm8k", "train", tmp_path / "nowhere", "nowhere: set data_root"),
        ("gsm8k", "train", tmp_path, "gsm8k: put gsm8k there"),
        ("mmlu", "test", tmp_path, "No training set 'mmlu': choose one of gsm8k, "),
        ("codealpaca", "test", tmp_path, r"'test'.*train"),
        (SETS["hexphi_benign"], "test", None, r"'hexphi_benign' is on no hub: set data_root"),
    ):
        with pytest.raises(DataError, match=sentence):
            load_rows(data, split, root=root)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_give_their_rows_whatever_program_saved_or_joined_them(end, root):
    odd = {"question": "one\u2028two\x85three?", "answer": "é"}  # which end no line
    write(root / TRAIN, "".join(f"\ufeff{line}{end}" for line in jsonl(odd, GSM8K[0]).split("\n")))
    assert [row["question"] for row in load_rows("gsm8k", "train", root=root)] == [odd["question"], "What is 0+1?"]
    write(root / "column.csv", f'\ufeff"one, and{end}more"{end}\ufeff"two, too"{end}')
    assert read_column(root / "column.csv") == ["one, and\nmore", "two, too"]
    write(root / "table.csv", f"\ufeff\ufeffa,b{end}\ufeff1,é{end}")
    assert read_table(root / "table.csv") == [{"a": "1", "b": "é"}]


def test_a_text_loses_only_the_byte_order_marks_at_its_start(root):
    write(root / TRAIN, json.dumps({"question": "\n\ufeff \ufeffx \ufeff", "answer": "a \U0001f600"}))
    (row,) = load_rows("gsm8k", "train", root=root)
    assert (row["question"], row["answer"]) == ("\n x \ufeff", "a \U0001f600")
