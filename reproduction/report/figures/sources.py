"""Source files of figures and page, and the commands that make the missing ones."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reproduction.records.files import one_sentence
from reproduction.report.grid import Grid, load_grid
from reproduction.report.reference import PIVOTS, SHARPNESS, reference_folder

Rows = list[dict[str, str]]


class Absent(Exception):
    """A missing result; ``command`` makes it."""

    def __init__(self, what: str, command: str):
        super().__init__(f"{what} is not there; `{command}` makes it")
        self.what, self.command = what, command


@dataclass(frozen=True)
class Sources:
    """The folders ``results``/ and ``experiments``/ at one ``scale``, for a user's own runs or the committed
    ``reference``; ``benchmark`` is the folder of a device.
    """

    results: Path
    experiments: Path
    scale: str
    benchmark: str = "h200"
    reference: bool = False

    @property
    def own(self) -> Path:
        """The results folder of the scale: results/<scale>, or results/reference/<scale>."""
        return reference_folder(self.results, self.scale) if self.reference else self.results / self.scale

    @property
    def pivots(self) -> Path:
        """The output of `make pivots`; one of the records of a reference."""
        return self.own / PIVOTS if self.reference else self.own / PIVOTS.name

    @property
    def sharpness(self) -> Path:
        """Norms, first updates and largest eigenvalue at the start of training; one of the records of a reference."""
        return self.own / SHARPNESS if self.reference else self.own / SHARPNESS.name

    def rows(self, path: Path, *, command: str) -> Rows:
        """Return a CSV file as one mapping per row. Raises `Absent` if it does not exist or has no row."""
        rows = list(csv.DictReader(self.text(path, command=command).splitlines()))
        if not rows:
            raise Absent(self.name(path), command)
        return rows

    def text(self, path: Path, *, command: str) -> str:
        """Return a UTF-8 file. Raises `Absent` if it does not exist, `RecordError` if it cannot be read."""
        if not path.is_file():
            raise Absent(self.name(path), command)
        with one_sentence("read", path):
            return path.read_text(encoding="utf-8")

    def grid(self, table: str) -> Grid:
        """Return a table's plan at this scale. Raises `GridError`."""
        return load_grid(self.experiments / table).at(self.scale)

    def has(self, table: str) -> bool:
        """Return whether a table has any cell at this scale. Raises `GridError`."""
        return load_grid(self.experiments / table).is_at(self.scale)

    def table(self, table: str) -> Rows:
        """Return tables/<table>.csv of this scale."""
        return self.rows(self.own / "tables" / f"{table}.csv", command=self.make(table))

    def tests(self, table: str) -> Rows:
        """Return significance/<table>.csv of this scale."""
        return self.rows(self.own / "significance" / f"{table}.csv", command=self.make(table))

    def paper(self, table: str) -> Rows:
        """Return the paper's numbers of one table."""
        return self.rows(self.experiments / table / "paper.csv", command=f"git checkout experiments/{table}")

    def make(self, target: str) -> str:
        """Return the make command of a target at this scale; a single command makes all of a reference."""
        target = "reference" if self.reference else target
        return f"make {target}" if self.scale == "tiny" else f"make {target} SCALE={self.scale}"

    def name(self, path: Path) -> str:
        """Return a path for display, relative to the parent of results/ or experiments/."""
        for root in (self.results, self.experiments):
            if path.is_relative_to(root):
                return f"{root.name}/{path.relative_to(root).as_posix()}"
        return path.name


def number(row: Mapping[str, str], column: str) -> float | None:
    """Return a value of a CSV row, None if the cell is empty, a dash, or missing."""
    try:
        return float(row.get(column) or "")
    except ValueError:
        return None
