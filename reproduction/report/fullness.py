"""Check that a report with fewer values does not replace a fuller one."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduction.records.files import one_sentence


def fuller(path: Path, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether an existing CSV file of results has more values than the rows that would replace it.

    Raises `RecordError` if it cannot be read.
    """
    if not path.is_file():
        return False
    with one_sentence("read", path), path.open(newline="", encoding="utf-8", errors="replace") as file:
        return _values(csv.DictReader(file)) > _values(rows)


def _values(rows: Iterable[Mapping[str, Any]]) -> int:
    """Count values times their seeds, by their intervals, which tables, tests and metrics.csv all have."""
    empty = (None, "", "—")
    return sum(
        int(row.get("seeds") or 1)
        * sum((name or "").endswith("ci_low") and value not in empty for name, value in row.items())
        for row in rows
    )
