"""Names available in expressions: the paper's tables, ours at a scale, counts, and losses and scores of a real model.

    t1 t2 t3 t7 t8["llama3", "idlora", "gsm8k"]    a cell of the paper; a colon selects all values of a place
    t4 t5["gsm8k_llama3", "rank"]  t6["idlora", 128]  fact["mmlu_items"]       experiments/audit/facts.csv
    t1 … t8 of ours                                a cell of the committed reference of a scale
    our6["idlora", 128]  ours["table1", "mistral", "idlora", "trainable"]      results/counts
    l1 l2 l3 l7 l8 lc["idlora", "loss_alpaca"]     a held-out loss of the small scale (lc: the controls)
    s1 s2 s3 s7 s8 sc["idlora", "gsm8k"]           a score there
    l1p s1p l2p s2p, ll sl                         Tables 1 and 2 at the paper's rates; Table 2's methods trained longer

Our measurements are compared only within one table, base and column, by the interval of the paired difference, and
never with the paper's numbers. A missing measurement raises `NotMeasured`.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.report.audit.quantities import Cell, Quantity, exact, printed
from reproduction.report.grid import SMALL
from reproduction.report.ordering import AT_FLOOR, NOISE, OPPOSITE, PAPER_TIE, SAME, TIE
from reproduction.report.reference import reference_folder
from reproduction.report.standings import (
    AHEAD,
    BEHIND,
    BEST_RATES,
    CONTROLS,
    LONGER,
    LOSS,
    PAPER_RATE,
    Pair,
    read_block,
)

RESULT_TABLES = (1, 2, 3, 7, 8)
SIGNS = {SAME: 1, OPPOSITE: -1} | dict.fromkeys((NOISE, TIE, PAPER_TIE, *AT_FLOOR.values()), 0)
"""Signs of an ordering's verdicts; a missing cell has none."""

BLOCKS = {
    "1": ("table1", BEST_RATES),
    "1p": ("table1", PAPER_RATE),
    "2": ("table2", BEST_RATES),
    "2p": ("table2", PAPER_RATE),
    "3": ("table3", CONTROLS),
    "7": ("table7", BEST_RATES),
    "8": ("table8", CONTROLS),
    "l": ("table_longer", LONGER),
    "c": ("table_controls", CONTROLS),
}
"""Suffix of the names ``l`` and ``s`` → table and base of the small scale."""


class AuditError(ValueError):
    """The audit's own files are unreadable or inconsistent; the message names the file and the entry."""


class NotMeasured(Exception):
    """Our measurement is missing; the audit reports this and continues."""


class Lookup:
    """Cells by key. A None in a key selects every value of that position, in the order of the file."""

    def __init__(self, name: str, cells: Mapping[tuple[Any, ...], Any]):
        self.name, self.cells = name, dict(cells)

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        if key in self.cells:
            return self.cells[key]
        found = [cell for own, cell in self.cells.items() if None in key and _fits(own, key)]
        if not found:
            raise KeyError(f"{self.name} has no {', '.join(':' if part is None else str(part) for part in key)}")
        return found


class Unmeasured:
    """Placeholder for a missing file."""

    def __getitem__(self, key: Any) -> Any:
        raise NotMeasured(f"{key}")


@dataclass(frozen=True)
class Measured:
    """A method's value in a ``group`` (table, base, column), represented by its differences from the others there.

    ``pairs`` maps (group, first, second) → the tested `Pair`, or the sign of first minus second (0 within noise).
    """

    group: tuple[str, ...]
    method: str
    pairs: Mapping[tuple[Any, str, str], "Pair | int"]

    def compare(self, symbol: str, other: Any) -> bool | None:
        """Evaluate ``self symbol other``; None if the difference is within noise or the column is at chance or zero.

        Raises `NotMeasured`, and TypeError for anything but a value of the same group.
        """
        pair = self.pair(other)
        sign = pair if isinstance(pair, int) else pair.measure.lead({AHEAD: 1, BEHIND: -1}.get(pair.verdict, 0))
        if symbol == "==" or not sign:
            return False if sign else None
        return (sign > 0) == symbol.startswith(">")

    def within(self, other: Any, margin: Quantity) -> bool | None:
        """Whether a score is less than ``margin`` points behind another; None if the interval contains the margin.

        Raises the errors of `compare`, and TypeError for a loss, which has no margin.
        """
        pair = self.pair(other)
        if self.is_loss:
            raise TypeError(f"{self} is a loss; within() has a margin for scores alone")
        if pair.floor or pair.low <= -margin.value <= pair.high:
            return None
        return pair.low > -margin.value

    def pair(self, other: Any) -> "Pair | int":
        """Return the tested pair of the two values. Raises the errors of `compare`."""
        if not isinstance(other, Measured) or self.group != other.group:
            raise TypeError(
                f"{self} is compared with a value of its own table, base and column alone, not with {other}"
            )
        if (self.group, self.method, other.method) not in self.pairs:
            raise NotMeasured(f"{self} against {other.method}")
        return self.pairs[self.group, self.method, other.method]

    @property
    def is_loss(self) -> bool:
        return self.group[-1].split("_")[0] == LOSS

    @property
    def at_paper_rate(self) -> bool:
        return PAPER_RATE in self.group

    def __str__(self) -> str:
        return f"{' '.join(self.group)}: {self.method}"


@dataclass(frozen=True)
class MeasuredTable:
    """Our values by (base, method, column), or by (method, column) if ``place`` names table and base.

    A missing value is detected when two values are compared.
    """

    place: tuple[str, ...]
    pairs: Mapping[tuple[Any, str, str], "Pair | int"]

    def __getitem__(self, key: tuple[str, ...]) -> Measured:
        *base, method, column = key
        return Measured((*self.place, *base, column), method, self.pairs)


def paper_names(experiments: Path) -> dict[str, Any]:
    """Return the names for expressions over the paper: t1 … t8 and ``fact``.

    ``experiments`` holds table1 … table8 and audit. Raises `AuditError` if a file is missing or a number unreadable.
    """
    names: dict[str, Any] = {}
    for number in range(1, 9):
        table, cells = f"table{number}", {}
        for row in read_csv(experiments / table / "paper.csv"):
            if number in RESULT_TABLES:
                key = row["base"], row["method"], row["column"]
                cells[key] = _printed(row["value"], Cell(table, *key), dagger=row["dagger"] == "yes")
            elif number == 6:
                place = Cell(table, row["base"], f"{row['method']} r={row['rank']}", "parameters")
                cells[row["method"], int(row["rank"])] = _printed(row["printed"], place)
            else:
                key = row["experiment"], row["hyperparameter"]
                cells[key] = _setting(row["value"], Cell(table, *key, "setting"))
        names[f"t{number}"] = Lookup(table, cells)
    facts = read_csv(experiments / "audit" / "facts.csv")
    read = {"exact": lambda text: exact(int(text)), "printed": printed}
    return names | {
        "fact": Lookup("facts.csv", {(row["name"],): read[row["precision"]](row["value"]) for row in facts})
    }


def table_names(results: Path, scale: str) -> dict[str, Any]:
    """Return our t1 … t8 from the committed reference of ``scale``. A user's own runs do not affect the audit."""
    names: dict[str, Any] = {}
    for number in RESULT_TABLES:
        table = f"table{number}"
        path, pairs = reference_folder(results, scale) / "tables" / f"{table}_orderings.csv", {}
        for row in read_csv(path) if path.is_file() else []:
            if (sign := SIGNS.get(row["verdict"])) is not None:
                group, first, second = (table, row["base"], row["column"]), row["ahead"], row["behind"]
                pairs |= {(group, first, second): sign, (group, second, first): -sign}
        names[f"t{number}"] = MeasuredTable((table,), pairs)
    return names


def count_names(results: Path) -> dict[str, Any]:
    """Return our6 and ours, from results/counts."""
    by_rank, by_table = {}, {}
    path = results / "counts" / "table6.csv"
    for row in read_csv(path) if path.is_file() else []:
        by_rank[row["method"], int(row["rank"])] = exact(int(row["trainable"]))
    path = results / "counts" / "percentages.csv"
    for row in read_csv(path) if path.is_file() else []:
        place = row["table"], row["base"], row["method"]
        by_table[*place, "trainable"] = exact(int(row["trainable"]))
        by_table |= {(*place, name): printed(row[name]) for name in ("params_pct_paper", "params_pct_plain")}
    named = {"our6": ("table6.csv", by_rank), "ours": ("percentages.csv", by_table)}
    return {name: Lookup(*given) if given[1] else Unmeasured() for name, given in named.items()}


def real_names(results: Path) -> dict[str, Any]:
    """Return losses and scores of results/reference/small, from its tests and the sweeps' files of all pairs."""
    folder, names = reference_folder(results, SMALL), {}
    for name, place in BLOCKS.items():
        found = read_block(folder, *place).pairs
        table = MeasuredTable(place, {((*place, column), a, b): pair for (a, b, column), pair in found.items()})
        names |= {f"l{name}": table, f"s{name}": table}
    return names


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return a CSV file's rows. Raises `AuditError` if it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise AuditError(f"the audit needs {path}, which cannot be read: {error.strerror}") from error


def _fits(own: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
    return len(own) == len(key) and all(part in (None, mine) for mine, part in zip(own, key, strict=True))


def _printed(text: str, cell: Cell, *, dagger: bool = False) -> Quantity:
    try:
        return printed(text, cell=cell, dagger=dagger)
    except ValueError as error:
        raise AuditError(f"experiments/{cell.table}/paper.csv, {cell}: {error}") from error


def _setting(text: str, cell: Cell) -> Quantity | str:
    try:
        return printed(text, cell=cell)
    except ValueError:  # words such as AdamW or q;k;v are compared as text
        return text
