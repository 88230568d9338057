"""Answers and scored items: one JSON line per item and sample.

answers.jsonl   a model's answers, appended batch by batch during the evaluation; each line has its own checksum
items.jsonl     the scored items, written atomically; DONE, written last, holds the SHA-256 of items.jsonl
"""

import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reproduction.records.files import RecordError, checksum, one_sentence, write_text
from reproduction.system.atomic import sync_folder

ANSWERS, ITEMS, META, DONE = "answers.jsonl", "items.jsonl", "meta.json", "DONE"

RAW_HASH = "raw_sha256"
"""Key that replaces "raw" in a packed record: the first 16 hex digits of its SHA-256."""

FIELDS = ("item_id", "item_hash", "prompt_hash", "sample", "raw", "parsed", "gold", "scores")
"""Fields of every item's record; a benchmark may add its own.

A score lies between 0 and 1, unless it has a weight in "weights" (name → number above 0): then it is a loss ≥ 0 per
unit, and its mean over items is weighted.
"""

ANSWER_FIELDS = ("item_id", "prompt_hash", "sample")
"""Key of an answer; its other fields are "raw" (text) or "logprobs" (of the choices), and its cost."""

LEFT_OUT = "left_out"
"""Key that replaces the text of an answer: the reason for skipping its item. In meta.json: reason → item ids."""

CONTROLS = "controls"
"""Key of meta.json: scores of known answers to the items, by name."""

CHECKSUM = "sha256"

Record = dict[str, Any]
Key = tuple[str, str, int]

log = logging.getLogger(__name__)


class AnswerLog:
    """A model's answers, on disk and in memory, for one writer that may be killed at any time.

    Opening removes an incomplete last line, which a kill during a write leaves, and logs that; its answer is generated
    again. Any other damage is an error.

    Raises `RecordError` if the file cannot be read, a line is damaged, or a key (item, prompt, sample) occurs twice.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._records: dict[Key, Record] = {}
        with one_sentence("read", self.path):
            data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(io.BytesIO(whole), start=1):  # splits only at \n
            record = _parse_answer(line)
            if record is None or _key(record) in self._records:
                what = "is damaged" if record is None else "repeats an answer"
                raise RecordError(
                    f"line {number} of {self.path} {what}: remove that line, and the same command asks again for its "
                    "answer alone"
                )
            self._records[_key(record)] = record
        if len(whole) < len(data):
            log.warning("cut an unfinished line of %d bytes at the end of %s", len(data) - len(whole), self.path)
            with one_sentence("repair", self.path):
                os.truncate(self.path, len(whole))

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __contains__(self, key: Key) -> bool:
        return tuple(key) in self._records

    def get(self, key: Key) -> Record | None:
        """Return the answer to (item id, prompt hash, sample), or None."""
        return self._records.get(key)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append a batch in one write, flushed and fsynced before this returns; on an error none of it is added.

        Raises ValueError for a record without a key or with a duplicate one, and `RecordError` if the disk is full.
        """
        new: dict[Key, Record] = {}
        lines = []
        for record in records:
            text = json.dumps(record, sort_keys=True, allow_nan=False)
            record = json.loads(text)  # memory equals the disk: tuples become lists in both
            key = _key(record)
            if key in self._records or key in new:
                raise ValueError(f"an answer to {key} is already in {self.path}; it is written once")
            new[key] = record
            lines.append(f'{{"{CHECKSUM}": "{_line_checksum(text)}", {text[1:]}\n')
        if not new:
            return
        with one_sentence("write", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                size, view = file.tell(), memoryview("".join(lines).encode())
                try:
                    while view:  # the kernel may split one write when the disk fills up
                        view = view[file.write(view) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
            if not size:
                sync_folder(self.path.parent)
        self._records.update(new)


def _parse_answer(line: bytes) -> Record | None:
    """Return the record of a line, or None if the line was changed."""
    try:
        record = json.loads(line)
        checksum = record.pop(CHECKSUM)
        _key(record)
    except (ValueError, TypeError, KeyError, AttributeError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return None
    return record if checksum == _line_checksum(json.dumps(record, sort_keys=True)) else None


def _line_checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(record: Mapping[str, Any]) -> Key:
    if missing := [field for field in ANSWER_FIELDS if field not in record]:
        raise ValueError(f"an answer to {record.get('item_id')!r} lacks {', '.join(missing)}")
    return record["item_id"], record["prompt_hash"], record["sample"]


def write_items(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace an evaluation's records, then write its DONE mark.

    Raises ValueError for a record that breaks the schema or a duplicate sample, and `RecordError` if the disk is full.
    """
    lines, seen = [], set()
    for record in records:
        _check(record)
        key = (record["item_id"], record["sample"])
        if key in seen:
            raise ValueError(f"item {key[0]!r} sample {key[1]} is there twice; a record is written once")
        seen.add(key)
        lines.append(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")
    folder = Path(folder)
    (folder / DONE).unlink(missing_ok=True)  # belongs to the previous scores
    write_text(folder / ITEMS, "".join(lines))
    write_text(folder / DONE, checksum(folder / ITEMS) + "\n")


def read_items(folder: Path) -> list[Record]:
    """Return the records of a finished evaluation, in the order of the file.

    Raises `RecordError` if the evaluation is not complete, or a line is not a record.
    """
    path = Path(folder) / ITEMS
    if not is_complete(folder):
        raise RecordError(f"{path} is not a finished evaluation; run the same evaluation again to complete it")
    records, seen = [], set()
    with one_sentence("read", path):
        data = path.read_bytes()
    for number, line in enumerate(io.BytesIO(data), start=1):
        try:
            record = json.loads(line)
            _check(record)
        except (ValueError, TypeError):
            raise RecordError(f"{path} line {number} is no record; delete {folder} and evaluate again") from None
        records.append(record)
        seen.add((record["item_id"], record["sample"]))
    if len(seen) < len(records):
        raise RecordError(f"{path} holds an item's sample twice; delete {folder} and evaluate again")
    return records


def is_complete(folder: Path) -> bool:
    """Return whether the folder has a DONE mark whose checksum matches items.jsonl."""
    mark, items = Path(folder) / DONE, Path(folder) / ITEMS
    if not (mark.is_file() and items.is_file()):
        return False
    with one_sentence("read", mark):
        expected = mark.read_text(encoding="utf-8", errors="replace").strip()
    return expected == checksum(items)


def _check(record: Any) -> None:
    """Raise ValueError unless a record has all `FIELDS` with the right types, and scores within bounds."""
    if not isinstance(record, dict):
        raise ValueError(f"a record is an object, not {record!r}")
    if missing := [field for field in FIELDS if field not in record and not (field == "raw" and RAW_HASH in record)]:
        raise ValueError(f"record {record.get('item_id')!r} lacks {', '.join(missing)}")
    item, scores, weights = record["item_id"], record["scores"], record.get("weights", {})
    if not isinstance(item, str) or type(record["sample"]) is not int:
        raise ValueError(f"item_id is text and sample an integer; got {item!r}, {record['sample']!r}")
    if not isinstance(scores, dict) or not scores:
        raise ValueError(f"item {item!r} has scores {scores!r}; it needs at least one")
    for name, score in scores.items():
        highest = math.inf if name in weights else 1
        if not isinstance(score, int | float) or not math.isfinite(score) or not 0 <= score <= highest:
            raise ValueError(f"item {item!r} scores {name} = {score!r}; it is a number from 0 to {highest:g}")
        if name in weights and not (isinstance(weights[name], int | float) and 0 < weights[name] < math.inf):
            raise ValueError(f"item {item!r} weighs {name} with {weights[name]!r}; a weight is above 0")
