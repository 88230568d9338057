"""What this project measured, as names for expressions: orderings of the tables, counts, and the theory's verdicts.

    t1 t2 t3 t7 t8["llama3", "idlora", "gsm8k"]    a cell of ours, compared by the interval of the paired difference
    our6["idlora", 128]                            trainable parameters (results/counts/table6.csv)
    ours["table1", "mistral", "idlora", "params_pct_plain"]    and any other column of results/counts/percentages.csv

Whatever has not been measured raises `NotMeasured`; at the embedded scale cells of ours stand in comparisons with each
other alone, so that no number of theirs meets one of the paper's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.report.audit.paper import RESULT_TABLES, Lookup, rows
from reproduction.report.audit.quantities import Cell, exact, printed
from reproduction.report.ordering import AT_FLOOR, NOISE, OPPOSITE, PAPER_TIE, SAME, TIE
from reproduction.report.reference import reference_folder

COUNTED, SIMULATED = "exact counts", "simulation"
_MAIN_KEYS = ("table", "base", "method")

_SIGNS = {SAME: 1, OPPOSITE: -1} | dict.fromkeys((NOISE, TIE, PAPER_TIE, *AT_FLOOR.values()), 0)
"""The paper's ties keep no verdict of ours; a missing cell is no measurement."""


class NotMeasured(Exception):
    """There is no such measurement of ours yet. No error: the audit says so and goes on."""


@dataclass(frozen=True)
class OurCell:
    """A cell of a table of ours, known by how it stands to the others of its base and column.

    ``directions`` maps (base, column, left, right) → +1 where left is ahead beyond noise, -1 where right is, else 0; 0
    too on a column at chance or zero, where nobody is.
    """

    place: Cell
    directions: Mapping[tuple[str, str, str, str], int]

    def compare(self, symbol: str, other: Any) -> bool | None:
        """``self symbol other``; None where nobody is ahead. Raises `NotMeasured`, and TypeError for another thing."""
        mine = self.place
        if not isinstance(other, OurCell) or (mine.table, mine.base, mine.column) != _group(other.place):
            raise TypeError(f"{mine} is compared with a cell of its own table, base and column alone, not with {other}")
        key = mine.base, mine.column, mine.method, other.place.method
        if key not in self.directions:
            raise NotMeasured(f"{mine} against {other.place.method}")
        direction = self.directions[key]
        if symbol == "==":
            return False if direction else None
        wanted = 1 if symbol.startswith(">") else -1
        return {wanted: True, -wanted: False, 0: None}[direction]


class OurTable:
    """A table of ours by (base, method, column). What it lacks shows when a cell is compared."""

    def __init__(self, name: str, directions: Mapping[tuple[str, str, str, str], int]):
        self.name, self.directions = name, directions

    def __getitem__(self, key: tuple[str, str, str]) -> OurCell:
        return OurCell(Cell(self.name, *key), self.directions)


class Absent:
    """Stands for a file that is not there: whatever is looked up in it has not been measured."""

    def __init__(self, path: Path):
        self.path = path

    def __getitem__(self, key: Any) -> Any:
        raise NotMeasured(f"{self.path} does not exist")


def table_names(results: Path, scale: str) -> dict[str, Any]:
    """t1 … t8 of ours at ``scale``, from the committed reference's tables/tableN_orderings.csv: no claim stands or
    falls by what a user runs.
    """
    names: dict[str, Any] = {}
    for number in RESULT_TABLES:
        path = reference_folder(results, scale) / "tables" / f"table{number}_orderings.csv"
        names[f"t{number}"] = OurTable(f"table{number}", _directions(path)) if path.is_file() else Absent(path)
    return names


def count_names(results: Path) -> dict[str, Any]:
    """our6 and ours, from results/counts."""
    by_rank, shares = results / "counts" / "table6.csv", results / "counts" / "percentages.csv"
    return {
        "our6": _lookup(by_rank, lambda row: {(row["method"], int(row["rank"])): exact(int(row["trainable"]))}),
        "ours": _lookup(shares, _share_cells),
    }


def theory_verdicts(results: Path) -> dict[str, list[dict[str, str]]]:
    """claim → its rows of results/theory/verdicts.csv; empty where the theory has not been run."""
    path = results / "theory" / "verdicts.csv"
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows(path) if path.is_file() else []:
        found.setdefault(row["claim"], []).append(row)
    return found


def _directions(path: Path) -> dict[tuple[str, str, str, str], int]:
    found = {}
    for row in rows(path):
        sign = _SIGNS.get(row["verdict"])
        if sign is not None:
            found[row["base"], row["column"], row["ahead"], row["behind"]] = sign
            found[row["base"], row["column"], row["behind"], row["ahead"]] = -sign
    return found


def _lookup(path: Path, read: Any) -> Lookup | Absent:
    if not path.is_file():
        return Absent(path)
    cells: dict[Any, Any] = {}
    for row in rows(path):
        cells |= read(row)
    return Lookup(path.name, cells)


def _share_cells(row: dict[str, str]) -> dict[tuple[str, ...], Any]:
    place = tuple(row[key] for key in _MAIN_KEYS)
    return {(*place, "trainable"): exact(int(row["trainable"]))} | {
        (*place, name): printed(row[name]) for name in ("params_pct_paper", "params_pct_plain")
    }


def _group(place: Cell) -> tuple[str, str, str]:
    return place.table, place.base, place.column
