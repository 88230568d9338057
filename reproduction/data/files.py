"""Local files to plain values; whatever is wrong with one is a sentence that names the file and the place in it."""

import codecs
import csv
import io
import json
import re
import string
from pathlib import Path

from reproduction.data.catalogue import DataError

_MARK = "\ufeff"
_BLANK = string.whitespace + _MARK
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")
_WIDE_MARKS = {  # UTF-32's first, since UTF-16's begins it
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def only_json(folder: Path, *, beside: str) -> Path:
    """The one .json file of a folder; one whose name begins with ``beside`` may stand beside it, or in its place."""
    found = sorted(folder.glob("*.json"))
    found = [path for path in found if not path.name.startswith(beside)] or found
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} must hold exactly one .json file, and holds {names}: leave the one to train on.")
    return found[0]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, its lines ended by "\\n" whatever ends them there, without byte order marks: a file
    made by joining others may have one at the start of any line.

    Raises:
        DataError: the file is missing, empty or in another encoding; where in it is said.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"No file {path}: put it there, or set data_root to null for the hub.") from None
    except UnicodeDecodeError as error:
        wide = next((kind for mark, kind in _WIDE_MARKS.items() if data.startswith(mark)), None)
        place = f"not UTF-8 at byte {error.start} (0x{data[error.start]:02x}, line {_line(data, error.start)})"
        raise DataError(f"{path} is {f'{wide}, ' if wide else ''}{place}: save it as UTF-8.") from None
    if (null := data.find(0)) >= 0:
        place = f"byte {null} (line {_line(data, null)})"
        raise DataError(f"{path} has a null byte, as UTF-16 and UTF-32 do, at {place}: save it as UTF-8.")
    text = re.sub("^\ufeff+", "", _LINE_END.sub("\n", text), flags=re.MULTILINE)
    if not text.strip():
        raise DataError(f"{path} is empty: fetch the file again.")
    return text


def clean(text: str, *, where: str) -> str:
    """A row's text without a byte order mark at its start.

    Args:
        where: the row and its column, to begin a sentence with.

    Raises:
        DataError: half of a surrogate pair, which JSON can write and no tokenizer takes.
    """
    if half := _HALF_PAIR.search(text):
        raise DataError(
            f"{where}: character {half.start()} is half of a surrogate pair (U+{ord(half[0]):04X}), which no tokenizer "
            "takes: mend the row or remove it."
        )
    start = len(text) - len(text.lstrip(_BLANK))
    return text[:start].replace(_MARK, "") + text[start:]


def read_json(path: Path) -> list:
    try:
        rows = _parse(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON at line {error.lineno} ({error.msg}): fetch the file again.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}: expected a JSON list of rows.")
    return rows


def read_jsonl(path: Path) -> list:
    rows = []
    # split on "\n" alone: str.splitlines would also cut at U+2028 and others, which JSON allows inside a string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_parse(line))
        except json.JSONDecodeError as error:
            raise DataError(f"Line {number} of {path} is not JSON ({error.msg}): mend the line or remove it.") from None
    return rows


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # a number too long, lists too deep: the parser names no place
        raise json.JSONDecodeError(str(error), text, 0) from None


def read_csv(path: Path) -> list[str]:
    cells = []
    for number, row in enumerate(csv.reader(io.StringIO(read_text(path), newline="")), start=1):
        if not row:
            continue
        if len(row) != 1:
            raise DataError(
                f"Record {number} of {path} has {len(row)} columns: expected one, without a header (a prompt that "
                "holds a comma stands in quotes)."
            )
        cells.append(row[0])
    return cells


def read_table(path: Path) -> list[dict]:
    """Rows of a CSV file with a header."""
    return list(csv.DictReader(io.StringIO(read_text(path), newline="")))


def _line(data: bytes, byte: int) -> int:
    """The number of the line that a byte stands in."""
    return len(re.findall(rb"\r\n?|\n", data[:byte])) + 1
