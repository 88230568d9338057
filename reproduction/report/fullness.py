"""A report of fewer values does not take the place of a fuller one: how much a file of results says."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduction.records.files import one_sentence


def fuller(path: Path, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a CSV file of results that is there says more than the rows that would replace it.

    Raises `RecordError` where it cannot be read.
    """
    if not path.is_file():
        return False
    with one_sentence("read", path), path.open(newline="", encoding="utf-8", errors="replace") as file:
        return _values(csv.DictReader(file)) > _values(rows)


def _values(rows: Iterable[Mapping[str, Any]]) -> int:
    """Values times their seeds; what has a value has an interval, in a table, in its tests and in metrics.csv."""
    empty = (None, "", "—")
    return sum(
        int(row.get("seeds") or 1)
        * sum((name or "").endswith("ci_low") and value not in empty for name, value in row.items())
        for row in rows
    )
