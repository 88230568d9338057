"""The paper's tables and the facts around them, as the names that expressions use.

t1 t2 t3 t7 t8["llama3", "idlora", "gsm8k"]    a printed cell; a colon in a place takes all that are there
t4 t5["gsm8k_llama3", "rank"]                  a hyperparameter
t6["idlora", 128]                              a count of parameters
fact["mmlu_items"]                             experiments/audit/facts.csv
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction.report.audit.quantities import Cell, Quantity, exact, printed

RESULT_TABLES = (1, 2, 3, 7, 8)
SETTING_TABLES = (4, 5)
COUNT_TABLE = 6


class AuditError(ValueError):
    """The audit's own files cannot be read or do not fit together; the message names the file and the entry."""


class Lookup:
    """Cells by key. A None in a key stands for every value of that place, in the order of the file."""

    def __init__(self, name: str, cells: Mapping[tuple[Any, ...], Any]):
        self.name, self.cells = name, dict(cells)

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        if None in key:
            found = [cell for own, cell in self.cells.items() if _matches(own, key)]
            if found:
                return found
        elif key in self.cells:
            return self.cells[key]
        raise KeyError(f"{self.name} has no {', '.join(':' if part is None else str(part) for part in key)}")


def paper_names(experiments: Path) -> dict[str, Any]:
    """Everything that an expression over the paper may name: t1 … t8 and ``fact``.

    ``experiments`` holds table1 … table8 and audit. Raises `AuditError` where a file is missing or a number unreadable.
    """
    names: dict[str, Any] = {f"t{n}": results(experiments, n) for n in RESULT_TABLES}
    names |= {f"t{n}": _settings(experiments, n) for n in SETTING_TABLES}
    return names | {f"t{COUNT_TABLE}": printed_counts(experiments), "fact": facts(experiments / "audit" / "facts.csv")}


def results(experiments: Path, number: int) -> Lookup:
    """A table of scores: (base, method, column) → `Quantity` in percent, with its place and its †."""
    table = f"table{number}"
    cells = {}
    for row in rows(experiments / table / "paper.csv"):
        key = row["base"], row["method"], row["column"]
        cells[key] = _printed(row["value"], table, Cell(table, *key), dagger=row["dagger"] == "yes")
    return Lookup(table, cells)


def printed_counts(experiments: Path) -> Lookup:
    """Table 6: (method, rank) → trainable parameters."""
    table = f"table{COUNT_TABLE}"
    cells = {}
    for row in rows(experiments / table / "paper.csv"):
        place = Cell(table, row["base"], f"{row['method']} r={row['rank']}", "parameters")
        cells[row["method"], int(row["rank"])] = _printed(row["printed"], table, place)
    return Lookup(table, cells)


def facts(path: Path) -> Lookup:
    """(name,) → an exact number, or a printed one with its rounding where ``precision`` says "printed"."""
    read = {"exact": lambda text: exact(int(text)), "printed": printed}
    cells = {}
    for row in rows(path):
        if row["precision"] not in read:
            raise AuditError(f"{path}: {row['name']} has precision {row['precision']!r}; there are exact and printed")
        cells[(row["name"],)] = read[row["precision"]](row["value"])
    return Lookup("facts.csv", cells)


def rows(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows. Raises `AuditError` where it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise AuditError(f"the audit needs {path}, which cannot be read: {error.strerror}") from error


def _settings(experiments: Path, number: int) -> Lookup:
    cells: dict[tuple[Any, ...], Quantity | str] = {}
    table = f"table{number}"
    for row in rows(experiments / table / "paper.csv"):
        place = Cell(table, row["experiment"], row["hyperparameter"], "setting")
        try:
            cells[row["experiment"], row["hyperparameter"]] = printed(row["value"], cell=place)
        except ValueError:  # AdamW, q;k;v: words, compared as such
            cells[row["experiment"], row["hyperparameter"]] = row["value"]
    return Lookup(table, cells)


def _printed(text: str, table: str, cell: Cell, *, dagger: bool = False) -> Quantity:
    try:
        return printed(text, cell=cell, dagger=dagger)
    except ValueError as error:
        raise AuditError(f"experiments/{table}/paper.csv, {cell}: {error}") from error


def _matches(own: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
    return len(own) == len(key) and all(part is None or part == mine for mine, part in zip(own, key, strict=True))
