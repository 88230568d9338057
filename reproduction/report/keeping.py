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
    return sum(
        int(row.get("seeds") or 1) * sum(_is_number(value) for name, value in row.items() if _ends(name))
        for row in rows
    )


def _ends(name: str | None) -> bool:
    return name is not None and name.endswith("ci_low")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
