"""Two small tables are rebuilt byte for byte from committed records: metrics, tests, tables, figures and page.

small_table/experiments/   Tables 1 and 2 cut to one base and to the untuned base, LoRA and ID-LoRA
            reference/     records/ and reference.json of two seeds, and the files made of them; SHA-256 of drawings

`python tests/report/test_small_table.py` rebuilds the files made of the records; `git diff` then shows the effect of an
intended change. With a folder as argument, such as results/reference/tiny, it first cuts records and reference.json
from the reference there.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

import pytest

from reproduction.records import find_runs
from reproduction.records.archive import pack, unpack
from reproduction.records.files import checksums
from reproduction.report import collect_metrics, gather, lay_out, load_grid, write_significance, write_table
from reproduction.report.figures import Sources, draw_figures
from reproduction.report.figures.worth import write_worth_tables
from reproduction.report.page import write_page
from reproduction.report.page.provenance import write_provenance
from reproduction.report.reference import (
    RECORDS,
    Made,
    read_reference,
    reference_folder,
    require_records,
    write_reference,
)

SCALE = "tiny"
EXPERIMENTS = Path(__file__).parent / "small_table" / "experiments"
COMMITTED = Path(__file__).parent / "small_table" / "reference"
SAVED = "table1"
"""The figure whose files are made; the page draws all of them."""

CUTS = {
    "table1": {"seeds": (0, 1), "benchmarks": ("gsm8k", "hexphi", "hexphi_benign"), "fewer": {"gsm8k": (0,)}},
    "table2": {"seeds": (0, 1)},
}
"""Table 1 has few benchmarks, one of them with fewer seeds, to cover the texts about both."""


def make(results: Path) -> Path:
    """Make everything from the committed records in an empty results folder; returns the reference's folder.

    The audit and results without a scale are left out; the page reports them as missing.
    """
    folder, runs = reference_folder(results, SCALE), results / "runs"
    shutil.copytree(COMMITTED / RECORDS, folder / RECORDS)
    shutil.copy(COMMITTED / "reference.json", folder)
    require_records(folder)
    unpack(folder / RECORDS, runs)
    sources = Sources(results, EXPERIMENTS, SCALE, reference=True)
    for name, made in read_reference(results, SCALE).tables.items():
        grid = made.cut(sources.grid(name), scale=SCALE)
        table = lay_out(gather(grid, runs, scale=SCALE, expected=made.runs, evaluations=made.evaluations))
        assert not table.missing
        write_significance(table.filled, folder / "significance" / f"{name}.csv", table.comparisons)
        write_table(table, folder / "tables")
    collect_metrics(runs, folder / "metrics.csv", scale=SCALE)
    write_provenance(runs, folder / "provenance.json", scale=SCALE)
    draw_figures(sources, SAVED)
    write_worth_tables(sources)
    write_page(sources, folder / "report.html")
    return folder


def hash_drawings(folder: Path) -> None:
    """Replace a figure's files and the page's drawings, which are large, by hashes."""
    (folder / "figures.json").write_text(json.dumps(checksums(folder / "figures"), indent=2) + "\n")
    shutil.rmtree(folder / "figures")
    page = folder / "report.html"
    text = page.read_bytes().decode()
    page.write_bytes(re.sub(r"<svg\b.*?</svg>", _hashed, text, flags=re.DOTALL).encode())


def _hashed(drawing: re.Match[str]) -> str:
    return f"<svg sha256={hashlib.sha256(drawing[0].encode()).hexdigest()}>"


def differing(old: Path, made: Path) -> list[str]:
    """Return the name of each file that differs between the folders, with both versions from the first difference."""
    names = {path.relative_to(root).as_posix() for root in (old, made) for path in root.rglob("*") if path.is_file()}
    found = []
    for name in sorted(names):
        if not ((old / name).is_file() and (made / name).is_file()):
            found.append(f"{name} is not {'made' if (old / name).is_file() else 'committed'}")
        elif (one := (old / name).read_bytes()) != (other := (made / name).read_bytes()):
            at = next(place for place, (a, b) in enumerate(zip_longest(one, other)) if a != b)
            line, start = one.count(b"\n", 0, at) + 1, max(one.rfind(b"\n", 0, at) + 1, at - 60)
            was, now = (text[start : at + 60].decode(errors="replace") for text in (one, other))
            found.append(f"{name}, line {line}:\n  committed {was!r}\n  made {now!r}")
    return found


def test_the_kept_records_give_the_kept_metrics_tests_tables_figures_and_page(tmp_path: Path) -> None:
    folder = make(tmp_path / "results")
    hash_drawings(folder)
    if found := differing(COMMITTED, folder):
        hint = f"where this is intended, the head of {Path(__file__).name} says how to keep it"
        pytest.fail("\n".join([*found, hint]), pytrace=False)


def test_records_that_are_unpacked_and_packed_again_say_the_same(tmp_path: Path) -> None:
    unpack(COMMITTED / RECORDS, tmp_path / "runs")
    runs = find_runs(tmp_path / "runs")
    pack(runs, tmp_path / "packed", evaluations={each.name for run in runs for each in run.evaluations()})
    unpack(tmp_path / "packed", tmp_path / "again")
    assert not differing(tmp_path / "runs", tmp_path / "again")


def cut(reference: Path) -> None:
    """Replace the committed records by the parts of results/reference/tiny that the cut tables show."""
    whole = read_reference(reference.parents[1], SCALE)
    tables = {name: _cut(whole.tables[name], name) for name in CUTS}
    wanted: dict[str, set[str]] = {}
    for made in tables.values():
        for run in made.runs.values():
            wanted.setdefault(run, set()).update(made.evaluations.values())
    with tempfile.TemporaryDirectory() as scratch:
        unpack(reference / RECORDS, Path(scratch))
        runs = [run for run in find_runs(Path(scratch)) if run.name in wanted]
        for run in runs:
            for each in run.evaluations():
                if each.name not in wanted[run.name]:
                    shutil.rmtree(each.folder)
        shutil.rmtree(COMMITTED, ignore_errors=True)
        pack(runs, COMMITTED / RECORDS, evaluations=set().union(*wanted.values()))
    write_reference(COMMITTED, tables)


def _cut(made: Made, table: str) -> Made:
    grid = load_grid(EXPERIMENTS / table).at(SCALE)
    made = dataclasses.replace(made, **CUTS[table])
    shown = made.cut(grid, scale=SCALE)
    benchmarks = {column.benchmark for column in shown.columns_at(SCALE)}
    return dataclasses.replace(
        made,
        runs={key: made.runs[key] for key in shown.cells()},
        evaluations={key: name for key, name in made.evaluations.items() if key[0] in benchmarks},
    )


def main(*reference: str) -> None:
    for each in reference:
        cut(Path(each).resolve())
    with tempfile.TemporaryDirectory() as scratch:
        folder = make(Path(scratch) / "results")
        hash_drawings(folder)
        shutil.rmtree(COMMITTED)
        shutil.copytree(folder, COMMITTED)


if __name__ == "__main__":
    main(*sys.argv[1:])
