"""The committed reference of a scale: the runs and evaluations behind its tables, and its printed values.

results/reference/<scale>/records/          packed records (`reproduction.records.archive`), pivots.csv, sharpness.csv
                          reference.json    its tables, and the SHA-256 of every file of records/
                          metrics.csv, tables/, significance/, figures/, provenance.json, report.html: made from these
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.records import RecordError, read_json, write_json
from reproduction.records.files import checksums
from reproduction.report.cells import Cell, Filled, evaluation_under
from reproduction.report.documents import read_csv
from reproduction.report.grid import CellKey, Grid, seeds_left

RECORDS = "records"
PIVOTS = Path(RECORDS) / "pivots.csv"
SHARPNESS = Path(RECORDS) / "sharpness.csv"

Key = tuple[str, str, str]
"""(base, method, column id)."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """Inputs of a table.

    Args:
        seeds: of the cells without an entry in ``fewer`` (see `Grid`).
        runs, evaluations: arguments of `cells.gather`.
        benchmarks: those that were run, None for all of the grid's.
    """

    seeds: tuple[int, ...]
    runs: Mapping[CellKey, str]
    evaluations: Mapping[tuple[str, str], str]
    benchmarks: tuple[str, ...] | None = None
    fewer: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def cut(self, grid: Grid, *, scale: str) -> Grid:
        """Return the grid with these seeds and benchmarks only; a note names the omitted columns."""
        return dataclasses.replace(grid.showing(self.benchmarks, scale), seeds=self.seeds, fewer=self.fewer)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference's folder, scale, and tables by name."""

    folder: Path
    scale: str
    tables: Mapping[str, Made]

    @property
    def name(self) -> str:
        """The folder's path in the repository."""
        return reference_folder(Path("results"), self.scale).as_posix()


def reference_folder(results: Path, scale: str) -> Path:
    """Return the folder of a scale's committed reference; a user's own results are in results/<scale>."""
    return Path(results) / "reference" / scale


def write_reference(folder: Path, tables: Mapping[str, Made]) -> None:
    """Write reference.json beside the complete records/. Raises `RecordError`."""
    written = {name: _as_json(made) for name, made in tables.items()}
    write_json(folder / "reference.json", {"tables": written, "records": checksums(folder / RECORDS)})


def read_reference(results: Path, scale: str) -> Reference | None:
    """Return the committed reference of a scale, None if there is none. Raises `RecordError` for a damaged one."""
    folder = reference_folder(results, scale)
    if not (folder / "reference.json").is_file():
        return None
    try:
        tables = {name: _from_json(own) for name, own in _read(folder)["tables"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(_damaged(folder / "reference.json")) from error
    return Reference(folder=folder, scale=scale, tables=tables)


def require_records(folder: Path) -> None:
    """Raise `RecordError` if the files of records/ do not match reference.json."""
    recorded, found = _read(folder).get("records") or {}, checksums(folder / RECORDS)
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            path = folder / RECORDS / name
            raise RecordError(_damaged(path) if name in recorded else f"{path} is none of the records: delete it")


def printed_beside(filled: Filled, reference: Reference) -> tuple[dict[Key, str], str]:
    """Return the reference's printed values of comparable cells, and a sentence about them.

    A value is comparable if it is of the same evaluations, and of the same runs for all common seeds, at least one.
    Both are empty if the reference has no such table. Raises `RecordError` if that table cannot be read.
    """
    made = reference.tables.get(filled.grid.table)
    if made is None:
        return {}, ""
    path = reference.folder / "tables" / f"{filled.grid.table}.csv"
    if not path.is_file():
        raise RecordError(_damaged(path))
    rows = {(row["base"], row["method"]): row for row in read_csv(path)}
    shown, others = {}, 0
    for key, cell in filled.cells.items():
        base, method, column = key
        row = rows.get((base, method), {})
        if row.get(f"{column}_ci_low"):
            if _comparable(cell, filled, made):
                spread = row.get(f"{column}_spread")
                shown[key] = row[column] + (f" ± {spread}" if spread else "")
            else:
                others += 1
    sentences = []
    if shown:
        seeds = (
            f"seed{'s' * (len(made.seeds) > 1)} {', '.join(map(str, made.seeds))}{', some fewer' * bool(made.fewer)}"
        )
        sentences.append(f"ref: what the committed reference prints there ({seeds}; `{reference.name}`).")
    if others:
        sentences.append(
            f"Of {others} of these values the committed reference (`{reference.name}`) is of other runs, by seed, "
            "settings, data or protocol: it is not comparable and not shown."
        )
    return shown, " ".join(sentences)


def _comparable(cell: Cell, filled: Filled, made: Made) -> bool:
    experiment, names = filled.grid.experiment(cell.column, cell.base), (cell.base, cell.method, cell.column.benchmark)
    own = dict(zip(filled.grid.seeds_of(*names), cell.runs, strict=True))
    common = [
        (own[seed], made.runs.get((experiment, cell.method, seed)))
        for seed in seeds_left(made.seeds, made.fewer, *names)
        if seed in own
    ]
    protocols = cell.column.protocols_at(filled.scale)
    evaluations = tuple(evaluation_under(cell.column.benchmark, each, made.evaluations) for each in protocols)
    return bool(common) and cell.evaluations == evaluations and all(ours == theirs for ours, theirs in common)


def _as_json(made: Made) -> dict[str, Any]:
    runs: dict[str, dict[str, list[str | None]]] = {}
    for experiment, method in dict.fromkeys(key[:2] for key in made.runs):
        runs.setdefault(experiment, {})[method] = [made.runs.get((experiment, method, seed)) for seed in made.seeds]
    value = {"seeds": made.seeds, "runs": runs, "evaluations": [[*key, n] for key, n in made.evaluations.items()]}
    return (
        value
        | ({"fewer": made.fewer} if made.fewer else {})
        | ({} if made.benchmarks is None else {"benchmarks": made.benchmarks})
    )


def _from_json(value: Mapping[str, Any]) -> Made:
    runs = {
        (experiment, method, seed): run
        for experiment, methods in value["runs"].items()
        for method, own in methods.items()
        for seed, run in zip(value["seeds"], own, strict=True)
        if run is not None  # a block with fewer seeds
    }
    return Made(
        seeds=tuple(value["seeds"]),
        runs=runs,
        evaluations={(benchmark, protocol): name for benchmark, protocol, name in value["evaluations"]},
        benchmarks=tuple(value["benchmarks"]) if "benchmarks" in value else None,
        fewer={name: tuple(own) for name, own in value.get("fewer", {}).items()},
    )


def _read(folder: Path) -> dict:
    try:
        return read_json(folder / "reference.json")
    except RecordError as error:
        raise RecordError(_damaged(folder / "reference.json")) from error


def _damaged(path: Path) -> str:
    return f"{path} is missing or not as it was made: `git checkout {path}` brings the committed one back"
