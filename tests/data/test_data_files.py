"""Data files as programs save them: byte order marks, line ends, other encodings, and text that no tokenizer takes."""

import codecs
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from reproduction.data import DataError, load_rows
from reproduction.data.files import clean, read_csv, read_json, read_jsonl, read_text
from reproduction.evals.task import load_task, names
from reproduction.evals.tasks.hexphi import CATEGORIES


@dataclass(frozen=True)
class Kind:
    """A kind of data file: where it lies, and the lines of one with the given texts in two rows."""

    name: str
    split: str
    path: str
    column: str
    lines: list[str]
    escapes: bool = True
    row: str = "Row"

    def with_texts(self, first: str, second: str) -> list[str]:
        if self.escapes:
            first, second = json.dumps(first)[1:-1], json.dumps(second)[1:-1]
        return [line.replace("FIRST", first).replace("SECOND", second) for line in self.lines]


INSTRUCTION = '{"instruction": "%s", "input": "", "output": "done"}'
QUIZ = (
    '{"id": "%s", "question": "%s", "choices": {"label": ["A", "B"], "text": ["yes", "é"]}, "answerKey": "A"}'
)  # fmt: skip
PROBLEM = (
    '{"task_id": "%s", "prompt": "%s", "entry_point": "f", "canonical_solution": "    return", '
    '"test": "def check(f): ..."}'
)
PROMPTS = "hexphi/category_1.csv"
KINDS = [
    Kind("gsm8k", "train", "gsm8k/train.jsonl", "question",
         ['{"question": "FIRST", "answer": "#### 1"}', '{"question": "SECOND", "answer": "#### 2"}']),
    Kind("alpaca", "train", "alpaca/data.json", "instruction",
         ["[", INSTRUCTION % "FIRST" + ",", INSTRUCTION % "SECOND", "]"]),
    Kind("commonsenseqa", "test", "commonsenseqa/validation.jsonl", "question",
         [QUIZ % ("a", "FIRST"), QUIZ % ("b", "SECOND")]),
    Kind("humaneval", "test", "humaneval/HumanEval.jsonl", "prompt",
         [PROBLEM % ("T/0", "FIRST"), PROBLEM % ("T/1", "SECOND")]),
    Kind("mmlu", "test", "mmlu/test/law_test.csv", "question",
         ["question,choice0,choice1,answer", "FIRST,yes,é,0", "SECOND,yes,é,1"], escapes=False),
    Kind("hexphi", "test", PROMPTS, "prompt", ["FIRST", "SECOND"], escapes=False, row="Prompt"),
]  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


@pytest.fixture
def load(tmp_path):
    """Saves the bytes of a file of some kind, and gives the texts that are read from it."""
    for category in CATEGORIES:
        (tmp_path / "hexphi").mkdir(exist_ok=True)
        (tmp_path / "hexphi" / f"{category}.csv").write_text("other\n")

    def load(kind: Kind, data: bytes) -> list[str]:
        path = tmp_path / kind.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        spec = load_task(kind.name).data if kind.name in names() else kind.name
        return [row[kind.column] for row in load_rows(spec, kind.split, root=tmp_path)][:2]

    return load


@every_kind
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Macintosh"])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\ufeff\ufeff"], ids=["no mark", "a mark", "two marks"])
def test_a_file_gives_its_rows_whatever_program_saved_it(kind, mark, end, load):
    text = mark + end.join([*kind.with_texts("one é", "two"), ""])
    assert load(kind, text.encode()) == ["one é", "two"]


@every_kind
def test_a_file_joined_of_several_has_a_mark_at_the_start_of_none_of_its_rows(kind, load):
    for end in ("\n", "\r\n", "\r"):
        text = "".join(f"\ufeff{line}{end}" for line in kind.with_texts("one", "two"))
        assert load(kind, text.encode()) == ["one", "two"]


@every_kind
def test_no_text_begins_with_a_mark_that_is_written_in_it(kind, load):
    # In JSON as an escape, in CSV within quotes.
    first, second = ("\ufeffone", " \ufeff two \ufeff") if kind.escapes else ('"\ufeffone"', '" \ufeff two \ufeff"')
    text = "\n".join(kind.with_texts(first, second))
    assert kind.escapes == ("\\ufeff" in text)
    assert load(kind, text.encode()) == ["one", "  two \ufeff"]


def test_a_mark_before_a_quoted_record_leaves_the_quotes_their_meaning(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text('\ufeff"one, and\r\nmore"\r\n\ufeff"two, too"\r\n', encoding="utf-8", newline="")
    assert read_csv(path) == ["one, and\nmore", "two, too"]


@every_kind
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_in_a_wide_encoding_is_refused_by_name_with_the_way_out(kind, encoding, load):
    text = "\n".join(kind.with_texts("one", "two"))
    width = encoding.upper()
    for name, order in (("le", "LE"), ("be", "BE")):
        mark = getattr(codecs, f"BOM_{width.replace('-', '')}_{order}")
        with pytest.raises(DataError, match=rf"{Path(kind.path).name} is {width}, not UTF-8 .*save it as UTF-8"):
            load(kind, mark + text.encode(f"{encoding}-{name}"))
        with pytest.raises(DataError, match=rf"{Path(kind.path).name} .* UTF-.*byte \d+.*line 1.*save it as UTF-8"):
            load(kind, text.replace("é", "e").encode(f"{encoding}-{name}"))


@every_kind
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman"])
def test_a_file_in_a_narrow_encoding_is_refused_with_the_line_and_the_byte(kind, encoding, load):
    lines = [line.replace("é", "e") for line in kind.lines]
    at = next(number for number, line in enumerate(lines) if "SECOND" in line)
    lines[at] = lines[at].replace("SECOND", "caf\u00e9")
    byte = "\u00e9".encode(encoding)[0]
    for end in ("\n", "\r\n", "\r"):
        data = end.join(lines).encode(encoding)
        place = rf"not UTF-8 at byte {data.index(byte)} \(0x{byte:02x}, line {at + 1}\): save it as UTF-8"
        with pytest.raises(DataError, match=rf"{Path(kind.path).name} is {place}"):
            load(kind, data)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.escapes], ids=lambda kind: kind.name)
def test_half_of_a_surrogate_pair_is_refused_with_its_row_column_and_place(kind, load):
    whole = "\n".join(kind.with_texts("one", "a \U0001f600"))
    assert "\\ud83d\\ude00" in whole
    assert load(kind, whole.encode()) == ["one", "a \U0001f600"]
    for half in ("\ud83d", "\ude00", "\ude00\ud83d"):
        sentence = rf"^Row 1 of .*{Path(kind.path).name}, {kind.column}: character 2 is half.*U\+{ord(half[0]):04X}"
        with pytest.raises(DataError, match=sentence) as refused:
            load(kind, "\n".join(kind.with_texts("one", f"a {half}")).encode())
        str(refused.value).encode()


def test_every_text_of_a_row_is_looked_at(tmp_path, load):
    for column, text in (("answer", "one"), ("question", "two")):
        row = {"question": "one", "answer": "two", column: text + "\ud83d"}
        with pytest.raises(DataError, match=rf"Row 0 of .*, {column}: character 3"):
            load(KINDS[0], json.dumps(row).encode())
    quiz = KINDS[2]
    lines = quiz.with_texts("one", "two")
    for old, new, place in (("yes", "yes\\ud83d", "choices"), ('"b"', '"b\\ud83d"', "id")):
        with pytest.raises(DataError, match=rf"Row 1 of .*, {place}: "):
            load(quiz, "\n".join([lines[0], lines[1].replace(old, new)]).encode())


def test_a_prompt_that_is_a_mark_alone_is_empty(load):
    with pytest.raises(DataError, match=r"Prompt 1 of category_1 in .* is empty"):
        load(KINDS[-1], 'one\n"\ufeff"\ntwo\n'.encode())
    with pytest.raises(DataError, match=r"category_1\.csv is empty"):
        load(KINDS[-1], codecs.BOM_UTF8 + b"\r\n")


def test_a_text_loses_only_the_marks_at_its_start():
    assert clean("\ufeff    return 1\n", where="Here") == "    return 1\n"
    assert clean("\n\ufeff \ufeffx \ufeff", where="Here") == "\n x \ufeff"
    assert clean("", where="Here") == ""


def test_json_beyond_the_parser_is_refused_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text in ("[" * 100_000, "9" * 10_000):
        path.write_text(f"1\n{text}\n")
        with pytest.raises(DataError, match=r"Line 2 of .*rows\.jsonl is not JSON"):
            read_jsonl(path)
        path.write_text(text)
        with pytest.raises(DataError, match=r"rows\.jsonl is not JSON at line 1"):
            read_json(path)


def test_a_null_byte_is_refused_with_its_place(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_bytes(b"one\r\ntw\0o\r\n")
    with pytest.raises(DataError, match=r"prompts\.csv has a null byte.* byte 7 \(line 2\)"):
        read_text(path)
