"""The committed reference of a scale: which runs and evaluations its tables are made of, and what they print.

results/reference/<scale>/records/          packed records (`reproduction.records.archive`), pivots.csv, sharpness.csv
                          reference.json    its tables, and the SHA-256 of every file of records/
                          metrics.csv, tables/, significance/, figures/, provenance.json, report.html: made from these
"""

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.records import RecordError, read_json, write_json
from reproduction.records.files import checksums, one_sentence
from reproduction.report.cells import Cell, Filled, evaluation_under
from reproduction.report.grid import CellKey, Grid, seeds_left

RECORDS = "records"
PIVOTS = Path(RECORDS) / "pivots.csv"
SHARPNESS = Path(RECORDS) / "sharpness.csv"

Key = tuple[str, str, str]
"""(base, method, column id)"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a table was made of: its ``seeds``, and ``runs`` and ``evaluations`` as `cells.gather` takes them.

    ``benchmarks`` are those that were run, None for all of the grid's; ``fewer`` as in `Grid`.
    """

    seeds: tuple[int, ...]
    runs: Mapping[CellKey, str]
    evaluations: Mapping[tuple[str, str], str]
    benchmarks: tuple[str, ...] | None = None
    fewer: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def cut(self, grid: Grid, *, scale: str) -> Grid:
        """The grid with these seeds, and of its columns those that were run; a note names what was not."""
        return dataclasses.replace(grid.showing(self.benchmarks, scale), seeds=self.seeds, fewer=self.fewer)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """``folder`` as it lies here, and its ``tables`` by name."""

    folder: Path
    scale: str
    tables: Mapping[str, Made]

    @property
    def name(self) -> str:
        """The folder as a reader of the repository writes it."""
        return reference_folder(Path("results"), self.scale).as_posix()


def widest_interval(test: Mapping[str, str]) -> tuple[float, float]:
    """The ends of a difference's interval in a row of significance/<table>.csv: over seeds too where there are any."""
    kind = "seeds_ci" if test["seeds_ci_low"] else "ci"
    return float(test[f"{kind}_low"]), float(test[f"{kind}_high"])


def reference_folder(results: Path, scale: str) -> Path:
    """Where the committed reference of a scale lies; what a user runs lies in results/<scale>."""
    return Path(results) / "reference" / scale


def write_reference(folder: Path, tables: Mapping[str, Made]) -> None:
    """Write reference.json beside records/, which is complete by now. Raises `RecordError`."""
    told = {name: _told(made) for name, made in tables.items()}
    write_json(folder / "reference.json", {"tables": told, "records": checksums(folder / RECORDS)})


def read_reference(results: Path, scale: str) -> Reference | None:
    """The committed reference of a scale, or None where there is none. Raises `RecordError` for a damaged one."""
    folder = reference_folder(results, scale)
    if not (folder / "reference.json").is_file():
        return None
    told = _told_in(folder)
    try:
        tables = {name: _made(own) for name, own in told["tables"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(_damaged(folder / "reference.json")) from error
    return Reference(folder=folder, scale=scale, tables=tables)


def require_records(folder: Path) -> None:
    """Raises `RecordError` where the files of records/ are not those that reference.json was written beside."""
    wanted, found = _told_in(folder).get("records") or {}, checksums(folder / RECORDS)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            path = folder / RECORDS / name
            raise RecordError(_damaged(path) if name in wanted else f"{path} is none of the records: delete it")


def printed_beside(filled: Filled, reference: Reference) -> tuple[dict[Key, str], str]:
    """What the reference prints in the places of these cells, where it is comparable, and a sentence about it.

    Comparable is a value of the same evaluation, of the same runs for all seeds that both have, which is one at least.
    The texts are those of the reference's own table; where it has none of this table both are empty.
    Raises `RecordError` where that table cannot be read.
    """
    made = reference.tables.get(filled.grid.table)
    if made is None:
        return {}, ""
    rows, shown, others = _rows(reference.folder / "tables" / f"{filled.grid.table}.csv"), {}, 0
    for key, cell in filled.cells.items():
        base, method, column = key
        row = rows.get((base, method), {})
        if row.get(f"{column}_ci_low"):
            if _comparable(cell, filled, made):
                spread = row.get(f"{column}_spread")
                shown[key] = row[column] + (f" ± {spread}" if spread else "")
            else:
                others += 1
    told = []
    if shown:
        seeds = (
            ("seeds " if len(made.seeds) > 1 else "seed ")
            + ", ".join(map(str, made.seeds))
            + ", some fewer" * bool(made.fewer)
        )
        told.append(f"ref: what the committed reference prints there ({seeds}; `{reference.name}`).")
    if others:
        told.append(
            f"Of {others} of these values the committed reference (`{reference.name}`) is of other runs, by seed, "
            "settings, data or protocol: it is not comparable and not shown."
        )
    return shown, " ".join(told)


def _comparable(cell: Cell, filled: Filled, made: Made) -> bool:
    experiment = filled.grid.experiment(cell.column, cell.base)
    own = dict(zip(filled.grid.seeds_of(cell.base, cell.method, cell.column.benchmark), cell.runs, strict=True))
    shown = seeds_left(made.seeds, made.fewer, cell.base, cell.method, cell.column.benchmark)
    theirs = {seed: made.runs[key] for seed in shown if (key := (experiment, cell.method, seed)) in made.runs}
    common = own.keys() & theirs.keys()
    asked = cell.column.protocols_at(filled.scale)
    evaluations = tuple(evaluation_under(cell.column.benchmark, each, made.evaluations) for each in asked)
    return bool(common) and cell.evaluations == evaluations and all(own[seed] == theirs[seed] for seed in common)


def _rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with one_sentence("read", path), path.open(newline="", encoding="utf-8") as file:
        return {(row["base"], row["method"]): row for row in csv.DictReader(file)}


def _told(made: Made) -> dict[str, Any]:
    runs: dict[str, dict[str, list[str | None]]] = {}
    for experiment, method in dict.fromkeys(key[:2] for key in made.runs):
        own = [made.runs.get((experiment, method, seed)) for seed in made.seeds]
        runs.setdefault(experiment, {})[method] = own
    evaluations = [[*asked, name] for asked, name in made.evaluations.items()]
    told = {"seeds": list(made.seeds), "runs": runs, "evaluations": evaluations}
    told |= {"fewer": {name: list(seeds) for name, seeds in made.fewer.items()}} if made.fewer else {}
    return told | ({} if made.benchmarks is None else {"benchmarks": list(made.benchmarks)})


def _made(told: Mapping[str, Mapping]) -> Made:
    seeds = tuple(told["seeds"])
    return Made(
        seeds=seeds,
        runs={
            (experiment, method, seed): run
            for experiment, methods in told["runs"].items()
            for method, runs in methods.items()
            for seed, run in zip(seeds, runs, strict=True)
            if run is not None  # a block of fewer seeds
        },
        evaluations={(benchmark, protocol): name for benchmark, protocol, name in told["evaluations"]},
        benchmarks=tuple(told["benchmarks"]) if "benchmarks" in told else None,
        fewer={name: tuple(own) for name, own in told.get("fewer", {}).items()},
    )


def _told_in(folder: Path) -> dict:
    try:
        return read_json(folder / "reference.json")
    except RecordError as error:
        raise RecordError(_damaged(folder / "reference.json")) from error


def _damaged(path: Path) -> str:
    return f"{path} is missing or not as it was made: `git checkout {path}` brings the committed one back"
