"""Local files to plain values; an error names the file and the place in it."""

import csv
import io
import json
import re
import string
from pathlib import Path

from reproduction.data.catalogue import DataError

_MARK = "\ufeff"
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, its lines ended by "\\n" and without byte order marks.

    Raises DataError where the file is missing, empty or in another encoding.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"No file {path}: put it there, or set data_root to null for the hub.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8.") from None
    if (null := text.find("\0")) >= 0:
        raise DataError(f"{path} has a null byte, as UTF-16 does, at character {null}: save it as UTF-8.")
    text = re.sub(f"^{_MARK}+", "", text, flags=re.MULTILINE)  # files that were joined have one inside, too
    if not text.strip():
        raise DataError(f"{path} is empty: fetch the file again.")
    return text


def read_json(path: Path) -> list:
    rows = _parsed(read_text(path), where=str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}: expected a JSON list of rows.")
    return rows


def read_jsonl(path: Path) -> list:
    # Split on "\n" alone: str.splitlines also cuts at U+2028 and others, which JSON allows inside a string.
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [_parsed(line, where=f"Line {number} of {path}") for number, line in lines if line.strip()]


def _parsed(text: str, *, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # beside bad JSON: numbers too long, lists too deep
        raise DataError(f"{where} is not JSON ({error}): mend it, or fetch the file again.") from None


def read_column(path: Path) -> list[str]:
    """The cells of a CSV file with one column and no header."""
    rows = [row for row in csv.reader(io.StringIO(read_text(path), newline="")) if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != 1:
            raise DataError(
                f"Record {number} of {path} has {len(row)} columns: expected one, quoted where it has commas."
            )
    return [cell for (cell,) in rows]


def read_table(path: Path) -> list[dict]:
    """Rows of a CSV file with a header."""
    return list(csv.DictReader(io.StringIO(read_text(path), newline="")))


def clean(text: str, *, where: str) -> str:
    """A row's text without byte order marks before its first character.

    Raises DataError for half of a surrogate pair, which JSON can write and no tokenizer takes; ``where`` names the row.
    """
    if half := _HALF_PAIR.search(text):
        raise DataError(
            f"{where}: character {half.start()}, U+{ord(half[0]):04X}, is half of a surrogate pair: mend it."
        )
    body = text.lstrip(string.whitespace + _MARK)
    return text[: len(text) - len(body)].replace(_MARK, "") + body
