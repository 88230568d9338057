"""Readers of local files; errors name the file and the position in it."""

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
    """Return the text of a UTF-8 file, with "\\n" line ends and without byte order marks.

    Raises DataError if the file is missing, empty or in another encoding.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"No file {path}: put it there, or set data_root to null for the hub.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8.") from None
    if (null := text.find("\0")) >= 0:
        raise DataError(f"{path} has a null byte, as UTF-16 does, at character {null}: save it as UTF-8.")
    text = re.sub(f"^{_MARK}+", "", text, flags=re.MULTILINE)  # concatenated files have marks inside, too
    if not text.strip():
        raise DataError(f"{path} is empty: fetch the file again.")
    return text


def read_json(path: Path) -> list:
    rows = _parsed(read_text(path), where=str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}: expected a JSON list of rows.")
    return rows


def read_jsonl(path: Path) -> list:
    # Not str.splitlines: it also splits at U+2028 and others, which JSON allows inside strings.
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [_parsed(line, where=f"Line {number} of {path}") for number, line in lines if line.strip()]


def _parsed(text: str, *, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also too long numbers, too deep lists
        raise DataError(f"{where} is not JSON ({error}): mend it, or fetch the file again.") from None


def read_column(path: Path) -> list[str]:
    """Return the cells of a CSV file with one column and no header."""
    rows = [(n, row) for n, row in enumerate(csv.reader(io.StringIO(read_text(path), newline="")), start=1) if row]
    for number, row in rows:
        if len(row) != 1:
            raise DataError(
                f"Record {number} of {path} has {len(row)} columns: expected one, quoted where it has commas."
            )
    return [cell for _, (cell,) in rows]


def read_table(path: Path) -> list[dict]:
    """Return the rows of a CSV file with a header."""
    return list(csv.DictReader(io.StringIO(read_text(path), newline="")))


def clean(text: str, *, where: str) -> str:
    """Return a row's text without leading byte order marks.

    Raises DataError for half of a surrogate pair, which JSON allows but tokenizers reject; ``where`` names the row.
    """
    if half := _HALF_PAIR.search(text):
        raise DataError(
            f"{where}: character {half.start()}, U+{ord(half[0]):04X}, is half of a surrogate pair: mend it."
        )
    body = text.lstrip(string.whitespace + _MARK)
    return text[: len(text) - len(body)].replace(_MARK, "") + body
