"""Per-item records: one JSON line per item and sample, and the mark that says they are all there.

An evaluation's folder holds ``meta.json``, ``items.jsonl`` and, written last, ``DONE`` (the SHA-256 of items.jsonl).
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

from idlora.records.files import RecordError, one_sentence, sync_folder, write_text

ITEMS, META, DONE = "items.jsonl", "meta.json", "DONE"

FIELDS = ("item_id", "item_hash", "prompt_hash", "sample", "raw", "parsed", "gold", "scores")
"""The fields of every record; a benchmark may add its own beside them."""

Record = dict[str, Any]
Key = tuple[str, int]

log = logging.getLogger(__name__)


class ItemLog:
    """The records of one evaluation, on disk and in memory, safe to kill at any moment.

    Opening reads the file and cuts what is not whole: everything from the first line that is unfinished or no
    record. What was cut is told in `cut` (None where nothing was) and logged. Cut items are simply asked again.

    Raises `RecordError` where the file cannot be read or holds a key (item_id, sample) twice.
    Leaves out: several writers at once (one process evaluates one run).
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.cut: str | None = None
        self._records: dict[Key, Record] = {}
        with one_sentence("read", self.path):
            data = self.path.read_bytes() if self.path.exists() else b""
        whole = 0
        for number, (line, record) in enumerate(_lines(data), start=1):
            if record is None:
                break
            if _key(record) in self._records:
                raise RecordError(f"{self.path} line {number} repeats {_key(record)}; delete it and evaluate again")
            self._records[_key(record)] = record
            whole += len(line)
        if whole < len(data):
            lost = data[whole:]
            lines = lost.count(b"\n") + (not lost.endswith(b"\n"))
            self.cut = f"cut {len(lost)} bytes ({lines} line(s)) after record {len(self._records)} of {self.path}"
            log.warning("%s: %r", self.cut, lost[:80])
            with one_sentence("repair", self.path):
                self._truncate(whole)

    @property
    def records(self) -> list[Record]:
        """The records in the order of the file."""
        return list(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __contains__(self, key: Key) -> bool:
        return tuple(key) in self._records

    def get(self, item_id: str, sample: int = 0) -> Record | None:
        """The record of one item's sample, or None."""
        return self._records.get((item_id, sample))

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add a batch: one write, flushed and fsynced before this returns; all of it or, on an error, none.

        Raises ValueError for a record without its `FIELDS`, a score outside [0, 1] or a key that is already there, and
        `RecordError` where the disk is full.
        """
        new: dict[Key, Record] = {}
        lines = []
        for record in records:
            record = dict(record)
            _check(record)
            key = _key(record)
            if key in self._records or key in new:
                raise ValueError(f"item {key[0]!r} sample {key[1]} is already in {self.path}; a record is written once")
            line = json.dumps(record, sort_keys=True, allow_nan=False)
            new[key] = json.loads(line)  # memory holds what the disk does: tuples are lists in both
            lines.append(line + "\n")
        if not new:
            return
        with one_sentence("write", self.path):
            self._write("".join(lines).encode())
        self._records.update(new)

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        existed = self.path.exists()
        size = self.path.stat().st_size if existed else 0
        try:
            with open(self.path, "ab", buffering=0) as file:
                view = memoryview(data)
                while view:  # one write; the kernel may take it in parts where the disk fills up
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
        except OSError:
            self._truncate(size)
            raise
        if not existed:
            sync_folder(self.path.parent)

    def _truncate(self, size: int) -> None:
        if self.path.exists():
            with open(self.path, "r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())


def read_items(folder: Path) -> list[Record]:
    """The records of a finished evaluation, in the order of the file; reads only, repairs nothing.

    Raises `RecordError` where the evaluation `is_complete` denies, or a line is no record.
    """
    path = Path(folder) / ITEMS
    if not is_complete(folder):
        raise RecordError(f"{path} is not a finished evaluation; run the same evaluation again to complete it")
    records = []
    with one_sentence("read", path):
        data = path.read_bytes()
    for number, (_, record) in enumerate(_lines(data), start=1):
        if record is None:
            raise RecordError(f"{path} line {number} is no record; delete {folder} and evaluate again")
        records.append(record)
    if len({_key(record) for record in records}) < len(records):
        raise RecordError(f"{path} holds an item's sample twice; delete {folder} and evaluate again")
    return records


def mark_done(folder: Path) -> None:
    """Write the DONE mark: the SHA-256 of items.jsonl as it is now. Raises `RecordError` where there is none."""
    write_text(Path(folder) / DONE, _sha256(Path(folder) / ITEMS) + "\n")


def is_complete(folder: Path) -> bool:
    """Whether the folder has a DONE mark and the items.jsonl that it was written for, unchanged."""
    mark, items = Path(folder) / DONE, Path(folder) / ITEMS
    if not (mark.is_file() and items.is_file()):
        return False
    with one_sentence("read", mark):
        expected = mark.read_text(encoding="utf-8", errors="replace").strip()
    return expected == _sha256(items)


def _sha256(path: Path) -> str:
    with one_sentence("read", path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(data: bytes) -> Iterator[tuple[bytes, Record | None]]:
    """Each line with its record, or with None where it is unfinished or no record."""
    for line in io.BytesIO(data):  # splits at \n alone
        record = None
        if line.endswith(b"\n"):
            try:
                record = json.loads(line)
                _check(record)
            except (ValueError, TypeError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
                record = None
        yield line, record


def _key(record: Mapping[str, Any]) -> Key:
    return record["item_id"], record["sample"]


def _check(record: Any) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"a record is an object, not {record!r}")
    if missing := [field for field in FIELDS if field not in record]:
        raise ValueError(f"record {record.get('item_id')!r} lacks {', '.join(missing)}")
    if not isinstance(record["item_id"], str) or type(record["sample"]) is not int:
        raise ValueError(f"item_id is text and sample an integer; got {record['item_id']!r}, {record['sample']!r}")
    if not isinstance(record["scores"], dict) or not record["scores"]:
        raise ValueError(f"item {record['item_id']!r} has scores {record['scores']!r}; it needs at least one")
    for name, score in record["scores"].items():
        if not isinstance(score, int | float) or not math.isfinite(score) or not 0 <= score <= 1:
            raise ValueError(f"item {record['item_id']!r} scores {name} = {score!r}; a score is a number from 0 to 1")
