"""Local files to plain values; whatever is wrong with one is a sentence that names the file and the place in it."""

import csv
import io
import json
from pathlib import Path

from idlora.data.catalogue import DataError


def only_json(folder: Path) -> Path:
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} must hold exactly one .json file, and holds {names}: leave the one to train on.")
    return found[0]


def read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"No file {path}: put it there, or set data_root to null for the hub.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}: fetch the file again.") from None
    if not text.strip():
        raise DataError(f"{path} is empty: fetch the file again.")
    return text


def read_json(path: Path) -> list:
    try:
        rows = json.loads(read_text(path))
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
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"Line {number} of {path} is not JSON ({error.msg}): mend the line or remove it.") from None
    return rows


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
