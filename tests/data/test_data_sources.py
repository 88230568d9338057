"""Rows of every data set, to train on and of the benchmarks, from folders, from the hub's format and from a package."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reproduction.cells.resolve_paths import data_digest, datasets
from reproduction.data import DataError, limit, load_rows, to_examples
from reproduction.data.catalogue import DatasetSpec
from reproduction.data.sources import SAFERPACA, load_from_hub
from reproduction.evals.task import load_task
from reproduction.evals.tasks.hexphi import CATEGORIES, WITHDRAWN

GSM8K = [{"question": f"What is {n}+1?", "answer": f"<<{n}+1={n + 1}>>\n#### {n + 1}"} for n in range(5)]
ALPACA = [
    {"category": "code", "instruction": "Sort it.", "input": "noinput", "output": "\nsorted(x) "},
    {"category": "code", "instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Greet.", "output": "Hello."},
]
HUMANEVAL = [
    {"task_id": "World/0", "prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n",
     "test": "def check(f):\n    assert f() == 1\n"}
]  # fmt: skip

MMLU = 'question,choice0,choice1,choice2,choice3,answer\nOne?,1,2,3,4,0\n"Two, or\n2?",None,nan,  ,"b, ""c""",3\n'
A_DEV = "mmlu/dev/a_dev.csv"
COMMONSENSEQA = [
    {"id": f"{n:032x}", "question": f"Where is {n}?", "question_concept": "place",
     "choices": {"label": list("ABCDE"), "text": ["here", "there", "up", "down", f"at {n}"]}, "answerKey": key}
    for n, key in enumerate("EBA")
]  # fmt: skip


SETS = datasets()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def jsonl(rows: list) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        write(tmp_path / "gsm8k" / f"{split}.jsonl", jsonl(GSM8K))
    write(tmp_path / "codealpaca" / "code_alpaca_20k.json", json.dumps(ALPACA))
    write(tmp_path / "alpaca" / "part.json", json.dumps(ALPACA))
    write(tmp_path / "alpaca_cleaned" / "alpaca_data_cleaned.json", json.dumps(ALPACA))
    write(tmp_path / "saferpaca" / "saferpaca_Instructions_2000.json", json.dumps(ALPACA))
    write(tmp_path / "saferpaca" / "safety_only_data_Instructions.json", json.dumps(ALPACA[::-1]))
    write(tmp_path / "humaneval" / "HumanEval.jsonl", jsonl(HUMANEVAL))
    for split in ("dev", "test"):
        for subject in ("winds", "high_tides"):
            write(tmp_path / "mmlu" / split / f"{subject}_{split}.csv", MMLU)
    write(tmp_path / "commonsenseqa" / "train.jsonl", jsonl(COMMONSENSEQA[::-1]))
    write(tmp_path / "commonsenseqa" / "validation.jsonl", jsonl(COMMONSENSEQA))
    for name in ("hexphi", "hexphi_benign"):
        for category in set(CATEGORIES) - {WITHDRAWN}:
            write(
                tmp_path / name / f"{category}.csv", f'{name} {category} first\n"second, ""quoted""\nand long"\nthird\n'
            )
    return tmp_path


@pytest.mark.parametrize("name", SETS)
def test_every_data_set_loads_from_a_folder_with_unique_stable_ids(name, root):
    split = next(iter(SETS[name].splits))
    rows = load_rows(SETS[name], split, root=root)
    assert rows
    assert len({row["id"] for row in rows}) == len(rows)
    assert rows == load_rows(SETS[name], split, root=str(root))
    assert all(set(SETS[name].columns) <= row.keys() for row in rows)


def test_gsm8k_rows_carry_question_answer_and_their_place(root):
    assert load_rows("gsm8k", "train", root=root)[3] == {"id": "train/3", **GSM8K[3]}


def test_a_line_separator_inside_a_json_string_does_not_end_its_line(root):
    odd = {"question": "one\u2028two\x85three?", "answer": "#### 1"}
    write(root / "gsm8k" / "train.jsonl", jsonl([odd, *GSM8K]))
    rows = load_rows("gsm8k", "train", root=root)
    assert len(rows) == 1 + len(GSM8K)
    assert rows[0]["question"] == odd["question"]


def test_codealpaca_loses_its_category_and_its_word_for_no_input(root):
    rows = load_rows("codealpaca", "train", root=root)
    assert [row["input"] for row in rows] == ["", "1 and 2", ""]
    assert rows[0].keys() == {"id", "instruction", "input", "output"}


def test_the_first_line_of_a_headerless_file_is_a_prompt(root):
    rows = load_rows(SETS["hexphi"], "test", root=root)
    assert len(rows) == 3 * 10
    assert rows[0] == {"id": "category_1/0", "prompt": "hexphi category_1 first", "category": "category_1"}
    assert rows[1]["prompt"] == 'second, "quoted"\nand long'
    assert [row["id"] for row in load_rows(SETS["hexphi_benign"], "test", root=root)] == [row["id"] for row in rows]


def test_humaneval_comes_from_the_folder_and_without_it_from_its_package(root, tmp_path):
    assert load_rows(SETS["humaneval"], "test", root=root) == [{"id": "World/0", **HUMANEVAL[0]}]
    own = data_digest(SETS["humaneval"], root)
    (root / "humaneval" / "HumanEval.jsonl").unlink()
    rows = load_rows(SETS["humaneval"], "test", root=root)
    assert len(rows) == 164
    assert rows[33]["id"] == rows[33]["task_id"] == "HumanEval/33"
    assert data_digest(SETS["humaneval"], root) not in (own, "absent")
    assert data_digest(SETS["humaneval"], None, revisions={"humaneval": "a"}) == "openai/openai_humaneval@a"


def test_a_set_that_its_own_file_brings_is_known_by_its_rows_wherever_the_others_are(root):
    def bringing(*capitals: str) -> DatasetSpec:
        raw = [{"country": capital[::-1], "capital": capital, "more": 1} for capital in capitals]
        return DatasetSpec("capitals", ("country", "capital"), {"test": "test"}, bundled=lambda: raw)

    spec = bringing("Oslo", "Rome")
    expected = {"id": "test/1", "country": "emoR", "capital": "Rome"}
    assert load_rows(spec, "test", root=None)[1] == load_rows(spec, "test", root=root)[1] == expected
    digests = [data_digest(bringing(*capitals), None) for capitals in (("Oslo", "Rome"), ("Rome", "Oslo"), ("Oslo",))]
    assert len(set(digests)) == 3
    assert data_digest(spec, root) == digests[0]
    write(root / "capitals" / "test.jsonl", jsonl([{"country": "France", "capital": "Paris"}]))
    assert [row["capital"] for row in load_rows(spec, "test", root=root)] == ["Paris"]
    assert data_digest(spec, root) not in digests
    assert data_digest(spec, None) == digests[0]
    with pytest.raises(DataError, match=r"Row 0 of capitals has no text in capital \(it has country\)"):
        load_rows(replace(spec, bundled=lambda: [{"country": "Peru"}]), "test", root=None)


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
    assert data_digest(spec, root) == before
    assert data_digest(spec, root / "nowhere") == "absent"
    assert data_digest(spec, None) == f"{spec.hub_id}@main"
    assert data_digest(spec, None, revisions={name: "abc", "other": "def"}) == f"{spec.hub_id}@abc"
    assert data_digest(spec, root, revisions={name: "abc"}) == before


def test_mmlu_rows_carry_their_subject_their_choices_as_written_and_the_answers_letter(root):
    rows = load_rows(SETS["mmlu"], "test", root=root)
    assert [row["id"] for row in rows] == [f"test/{s}/{n}" for s in ("high_tides", "winds") for n in range(2)]
    assert rows[3] == {
        "id": "test/winds/1", "subject": "winds", "question": "Two, or\n2?", "choices": ["None", "nan", "  ", 'b, "c"'],
        "answer": "D",
    }  # fmt: skip
    assert [row["id"] for row in load_task("mmlu").examples(root=root)] == [
        row["id"].replace("test", "dev") for row in rows
    ]


def test_commonsenseqa_rows_keep_the_sources_id_and_have_the_answers_letter(root):
    rows = load_rows(SETS["commonsenseqa"], "test", root=root)
    assert [(row["id"], row["answer"]) for row in rows] == [(row["id"], row["answerKey"]) for row in COMMONSENSEQA]
    assert rows[2]["choices"] == ["here", "there", "up", "down", "at 2"]


def test_examples_come_from_the_training_rows_and_where_there_are_none_from_the_validation_rows(root):
    assert load_task("gsm8k").examples(root=root) == load_rows("gsm8k", "train", root=root)
    assert load_task("commonsenseqa").examples(root=root)[0]["question"] == "Where is 2?"
    (root / "commonsenseqa" / "train.jsonl").unlink()
    assert load_task("commonsenseqa").examples(root=root) == load_rows(SETS["commonsenseqa"], "test", root=root)


@pytest.mark.parametrize("name", ["mmlu", "commonsenseqa"])
def test_the_hubs_fields_of_a_question_give_the_folders_rows(name, root, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    hub = tmp_path_factory.mktemp("hub")
    for split, file in SETS[name].splits.items():
        rows = load_rows(SETS[name], split, root=root)
        fields = COMMONSENSEQA[:: -1 if split == "train" else 1]
        if name == "mmlu":
            fields = [row | {"answer": "ABCD".index(row["answer"])} for row in rows]
        write(hub / f"{file}.jsonl", jsonl(fields))
    splits = "".join(f"  - {{split: {file}, path: {file}.jsonl}}\n" for file in SETS[name].splits.values())
    write(hub / "README.md", f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n")
    spec = replace(SETS[name], hub_id=str(hub), hub_config=None)
    for split in spec.splits:
        assert load_from_hub(spec, split, revision="main") == load_rows(SETS[name], split, root=root)


@pytest.mark.parametrize("name", ["gsm8k", "codealpaca"])
def test_the_hub_and_the_folder_give_the_same_rows(name, root, tmp_path_factory, monkeypatch):
    # `datasets` reads a folder as it reads a repository of the hub.
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    write(root / "codealpaca" / "code_alpaca_20k.json", json.dumps([{"input": "", **row} for row in ALPACA]))
    spec = replace(SETS[name], hub_id=str(root / name), hub_config=None)
    for split in spec.splits:
        assert load_from_hub(spec, split, revision="main") == load_rows(SETS[name], split, root=root)


@pytest.mark.parametrize(
    ("damage", "name", "sentence"),
    [
        (lambda root: (root / "gsm8k" / "train.jsonl").unlink(), "gsm8k", r"No file .*train\.jsonl"),
        (lambda root: write(root / "gsm8k" / "train.jsonl", " \n"), "gsm8k", r"train\.jsonl is empty"),
        (lambda root: write(root / "gsm8k" / "train.jsonl", jsonl(GSM8K) + "{oops"), "gsm8k", r"Line 6 of .*train"),
        (lambda root: write(root / "gsm8k" / "train.jsonl", "[1]\n"), "gsm8k", r"Row 0 of .* is a list"),
        (
            lambda root: write(root / "gsm8k" / "train.jsonl", jsonl([*GSM8K, {"question": "?", "reply": "1"}])),
            "gsm8k",
            r"Row 5 of .*train\.jsonl has no text in answer \(it has question, reply\)",
        ),
        (lambda root: (root / "gsm8k" / "train.jsonl").write_bytes(b"\xff\xfe"), "gsm8k", r"not UTF-8 at byte 0"),
        (lambda root: write(root / "alpaca" / "part.json", "{"), "alpaca", r"part\.json is not JSON at line 1"),
        (lambda root: write(root / "alpaca" / "part.json", "{}"), "alpaca", r"part\.json holds a dict"),
        (lambda root: write(root / "alpaca" / "part.json", "[]"), "alpaca", r"part\.json holds no rows"),
        (lambda root: (root / "alpaca" / "part.json").unlink(), "alpaca", r"exactly one \.json file, and holds none"),
        (lambda root: write(root / "alpaca" / "more.json", "[]"), "alpaca", r"holds more\.json, part\.json"),
        (lambda root: shutil.rmtree(root / "mmlu" / "dev"), "mmlu", r"mmlu holds no rows"),
        (lambda root: write(root / A_DEV, MMLU.replace(",3\n", ",4\n")), "mmlu", r"answer 4 of 4"),
        (lambda root: write(root / A_DEV, MMLU + "Short?,1,2\n"), "mmlu", r"Row 2 of .*is not as mmlu has them"),
        (lambda root: write(root / A_DEV, MMLU.replace("choice", "x")), "mmlu", r"of 0 choices"),
        (
            lambda root: write(root / "commonsenseqa" / "train.jsonl", jsonl([COMMONSENSEQA[0] | {"answerKey": "F"}])),
            "commonsenseqa",
            r"Row 0 of .*train\.jsonl is not as commonsenseqa has them \(ValueError: 'F'",
        ),
        (
            lambda root: write(root / "commonsenseqa" / "train.jsonl", jsonl([{"question": "?"}])),
            "commonsenseqa",
            r"KeyError: 'choices'",
        ),
        (lambda root: (root / "hexphi" / "category_7.csv").unlink(), "hexphi", r"No file .*category_7\.csv"),
        (lambda root: write(root / "hexphi" / "category_7.csv", "a,b\n"), "hexphi", r"Record 1 of .*has 2 columns"),
        (lambda root: write(root / "hexphi" / "category_7.csv", 'a\n" "\n'), "hexphi", r"Prompt 1 of category_7"),
    ],
)  # fmt: skip
def test_damaged_data_are_refused_with_the_place(damage, name, sentence, root):
    split = next(iter(SETS[name].splits))
    load_rows(SETS[name], split, root=root)
    damage(root)
    with pytest.raises(DataError, match=sentence):
        load_rows(SETS[name], split, root=root)


def test_a_missing_root_or_folder_is_named_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: set data_root"):
        load_rows("gsm8k", "train", root=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"gsm8k: put gsm8k there"):
        load_rows("gsm8k", "train", root=tmp_path)


def test_an_unknown_data_set_or_split_is_refused_with_the_known_ones(root):
    for name in ("mmmlu", "mmlu"):  # which is a benchmark, and nothing to train on
        with pytest.raises(DataError, match=rf"No training set '{name}': choose one of gsm8k, "):
            load_rows(name, "test", root=root)
    with pytest.raises(DataError, match=r"'test'.*train"):
        load_rows("codealpaca", "test", root=root)


def test_the_withdrawn_category_is_read_where_a_folder_has_it(root):
    ten = load_rows(SETS["hexphi"], "test", root=root)
    write(root / "hexphi" / f"{WITHDRAWN}.csv", "one more\nand another\n")
    eleven = load_rows(SETS["hexphi"], "test", root=root)
    assert [row for row in eleven if row["category"] != WITHDRAWN] == ten
    assert [row["id"] for row in eleven[2:6]] == ["category_1/2", "category_2/0", "category_2/1", "category_3/0"]


def instructions(kind: str, count: int) -> str:
    return json.dumps([{"instruction": f"{kind} {n}", "input": "", "output": f"done {n}"} for n in range(count)])


@pytest.fixture
def safety_alone(root) -> Path:
    """A root whose saferpaca folder has the authors' safety rows without the others."""
    (root / "saferpaca" / "saferpaca_Instructions_2000.json").unlink()
    write(root / "saferpaca" / "safety_only_data_Instructions.json", instructions("safety", 2_100))
    write(root / "alpaca_cleaned" / "alpaca_data_cleaned.json", instructions("cleaned", 20_300))
    return root


def test_safety_rows_alone_are_completed_as_their_authors_did(safety_alone):
    rows = load_rows("saferpaca", "train", root=safety_alone)
    assert [row["part"] for row in rows] == ["alpaca_cleaned"] * 20_000 + ["safety"] * 2_000
    assert SAFERPACA == {"alpaca_cleaned": 20_000, "safety": 2_000}
    assert len({row["id"] for row in rows}) == len(rows)
    assert rows == load_rows("saferpaca", "train", root=safety_alone)
    safety = [row["instruction"] for row in rows if row["part"] == "safety"]
    assert safety == sorted(safety, key=lambda text: int(text.split()[1]))
    assert safety != [f"safety {n}" for n in range(2_000)]
    assert all(row["instruction"].startswith("cleaned") for row in rows[:20_000])


def test_safety_rows_alone_are_never_the_whole_training_set(safety_alone):
    write(safety_alone / "alpaca_cleaned" / "alpaca_data_cleaned.json", instructions("cleaned", 19_999))
    with pytest.raises(DataError, match=r"takes 20000 rows of alpaca_cleaned, and .* has 19999"):
        load_rows("saferpaca", "train", root=safety_alone)
    shutil.rmtree(safety_alone / "alpaca_cleaned")
    with pytest.raises(DataError, match=r"safety rows alone.*put yahma/alpaca-cleaned's .*alpaca_cleaned"):
        load_rows("saferpaca", "train", root=safety_alone)


def test_the_assembled_file_and_the_safety_rows_stand_beside_each_other_as_two_sets(root):
    assert [row["instruction"] for row in load_rows("saferpaca", "train", root=root)] == ["Sort it.", "Add.", "Greet."]
    assert [row["instruction"] for row in load_rows("safety", "train", root=root)] == ["Greet.", "Add.", "Sort it."]
    safety, assembled = (data_digest(name, root) for name in ("safety", "saferpaca"))
    write(root / "alpaca_cleaned" / "alpaca_data_cleaned.json", instructions("other", 3))
    assert data_digest("saferpaca", root) == assembled
    write(root / "saferpaca" / "saferpaca_Instructions_2000.json", instructions("other", 3))
    assert data_digest("safety", root) == safety != "absent"
    for path in (root / "saferpaca").glob("*.json"):
        path.unlink()
    assert data_digest("safety", root) == data_digest("saferpaca", root) == "absent"
    with pytest.raises(DataError, match=r"No file .*saferpaca/safety_only_data_Instructions\.json"):
        load_rows("safety", "train", root=root)


def test_what_a_set_is_assembled_from_is_part_of_its_digest_and_nothing_else_is(safety_alone):
    cleaned = safety_alone / "alpaca_cleaned" / "alpaca_data_cleaned.json"
    assembled, alpaca = (data_digest(name, safety_alone) for name in ("saferpaca", "alpaca"))
    write(cleaned, instructions("other", 20_300))
    assert data_digest("saferpaca", safety_alone) != assembled
    assert data_digest("alpaca", safety_alone) == alpaca
    alone = safety_alone / "saferpaca" / "safety_only_data_Instructions.json"
    alone.rename(alone.with_name("saferpaca_Instructions_2000.json"))
    whole = data_digest("saferpaca", safety_alone)
    write(cleaned, instructions("cleaned", 3))
    assert data_digest("saferpaca", safety_alone) == whole


def test_a_set_that_is_on_no_hub_says_how_to_do_without():
    with pytest.raises(DataError, match=r"'hexphi_benign' is on no hub: set data_root"):
        load_rows(SETS["hexphi_benign"], "test", root=None)


def test_examples_are_rendered_prompts_with_stripped_responses(root):
    examples = to_examples("codealpaca", load_rows("codealpaca", "train", root=root))
    assert "### Input:\n1 and 2\n" in examples[1].prompt
    assert "### Input:" not in examples[0].prompt
    assert [example.response for example in examples] == ["sorted(x)", "3", "Hello."]
    assert to_examples("gsm8k", [{"id": "a", **GSM8K[0]}])[0].response == "<<0+1=1>>\n#### 1"


ROWS = [{"id": f"train/{n}"} for n in range(200)]


def test_a_limit_keeps_the_order_and_reaches_every_part_of_the_set():
    kept = limit(ROWS, 50)
    assert len(kept) == 50
    assert kept == [row for row in ROWS if row in kept]
    assert any(row in ROWS[150:] for row in kept)
    assert limit(ROWS, None) == ROWS == limit(ROWS, 1000)
    with pytest.raises(ValueError, match="to 0 rows"):
        limit(ROWS, 0)
