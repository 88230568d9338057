"""What a real pre-trained model says: held-out losses of the small scale's committed reference, for expressions.

    l1 l2 l3 l7 l8 lc["idlora", "loss_alpaca"]    a loss of ours (lc: the controls), compared by the interval of the
                                                  paired difference over seeds and items; lower is better
    rate["idlora", "best"]                        the learning rate that its trials chose

A loss is known by its differences from its table's reference alone, so that every comparison has an interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idlora.report.audit.ours import Absent, NotMeasured
from idlora.report.audit.paper import RESULT_TABLES, Lookup, rows
from idlora.report.audit.quantities import exact
from idlora.report.grid import SMALL
from idlora.report.reference import reference_folder, widest_interval

TABLES = {f"l{number}": f"table{number}" for number in RESULT_TABLES} | {"lc": "table_controls"}
"""The names of expressions, and the tables behind them."""

Signs = Mapping[tuple[str, str, str], int]
"""(column, method, other) → -1 where the method's loss is lower beyond noise, +1 where it is higher, else 0."""


@dataclass(frozen=True)
class Loss:
    """A method's loss in one column of a table, known by how it stands to others."""

    table: str
    method: str
    column: str
    signs: Signs

    def compare(self, symbol: str, other: Any) -> bool | None:
        """``self symbol other``; None where zero lies inside the interval, so that a tie is never told.

        Raises `NotMeasured`, and TypeError for anything but a loss of the same table and column.
        """
        if not isinstance(other, Loss) or (self.table, self.column) != (other.table, other.column):
            raise TypeError(f"{self} is compared with a loss of its own table and column alone, not with {other}")
        if (self.column, self.method, other.method) not in self.signs:
            raise NotMeasured(f"{self} against {other.method}")
        sign = self.signs[self.column, self.method, other.method]
        if symbol == "==":
            return False if sign else None
        wanted = 1 if symbol.startswith(">") else -1
        return {wanted: True, -wanted: False, 0: None}[sign]

    def __str__(self) -> str:
        return f"{self.table} {self.column}: {self.method}"


@dataclass(frozen=True)
class LossTable:
    """A table's losses by (method, column). What it lacks shows when two are compared."""

    name: str
    signs: Signs

    def __getitem__(self, key: tuple[str, str]) -> Loss:
        return Loss(self.name, *key, self.signs)


class RateTable(Lookup):
    """Learning rates by (method, "best"); a method without trials has not been measured."""

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        if key not in self.cells:
            raise NotMeasured(f"{self.name} has no {', '.join(map(str, key))}")
        return super().__getitem__(key)


def real_names(results: Path) -> dict[str, Any]:
    """l1 … lc and ``rate``, from results/reference/small: significance/<table>.csv and tables/rates.csv."""
    folder = reference_folder(results, SMALL)
    names: dict[str, Any] = {}
    for name, table in TABLES.items():
        path = folder / "significance" / f"{table}.csv"
        names[name] = LossTable(table, _signs(path)) if path.is_file() else Absent(path)
    path = folder / "tables" / "rates.csv"
    return names | {"rate": RateTable(path.name, _rates(path)) if path.is_file() else Absent(path)}


def _signs(path: Path) -> dict[tuple[str, str, str], int]:
    """Of several bases only what all of them agree on is told."""
    found: dict[tuple[str, str, str], int] = {}
    for row in rows(path):
        low, high = widest_interval(row)
        sign = (low > 0) - (high < 0)
        key = row["column"], row["method"], row["reference"]
        sign = sign if found.get(key, sign) == sign else 0
        found[key] = sign
        found[row["column"], row["reference"], row["method"]] = -sign
    return found


def _rates(path: Path) -> dict[tuple[str, str], Any]:
    return {(row["method"], "best"): exact(float(row["best_rate"])) for row in rows(path) if row["best_rate"]}
