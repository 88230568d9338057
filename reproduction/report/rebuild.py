"""Rebuilds the committed reference of a scale from its records: tables, tests, metrics, figures, provenance, page.

The only inputs are the records, experiments/ and results without a scale, so the same records give the same bytes.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from reproduction.records import RecordError
from reproduction.records.archive import unpack
from reproduction.report.audit import audit, write_audit
from reproduction.report.cells import gather
from reproduction.report.collect import collect_metrics
from reproduction.report.figures import Sources, draw_figures, figures_of, folder_of, has_rates
from reproduction.report.grid import SMALL, TINY
from reproduction.report.page import write_page
from reproduction.report.page.provenance import write_provenance
from reproduction.report.real import write_real
from reproduction.report.reference import RECORDS, Reference, read_reference, reference_folder, require_records
from reproduction.report.render import write_table
from reproduction.report.statistics import write_significance
from reproduction.report.tables import lay_out
from reproduction.system.atomic import scratch_folder

SHOWN = (SMALL, TINY)
"""Scales whose references every page shows."""

OF_NO_SCALE = ("counts", "theory")
"""Results without a scale that the page also shows, with the benchmark and an audit of the new tables."""


def rebuild(results: Path, experiments: Path, *, scale: str) -> Path:
    """Rebuild a reference from its committed records alone; returns its folder.

    Raises `RecordError` if there is none, or its records are missing, damaged or lack a run.
    """
    committed = reference_folder(results, scale)
    if not (committed / "reference.json").is_file():
        raise RecordError(
            f"there is no reference of scale={scale}: {committed / 'reference.json'} is not there; `make reference "
            f"SCALE={scale}` makes it"
        )

    def copy(folder: Path) -> None:
        require_records(committed)
        shutil.copytree(committed / RECORDS, folder / RECORDS)
        shutil.copy(committed / "reference.json", folder)

    return make_reference(results, experiments, scale=scale, put=copy)


def make_reference(results: Path, experiments: Path, *, scale: str, put: Callable[[Path], None]) -> Path:
    """Make a reference and replace the old one, which stays whole until the new one is complete; returns its folder.

    Args:
        results: the folder of reference/<scale>, counts/, theory/ and h200/.
        experiments: the grids and the claims.
        scale: of the runs.
        put: writes reference.json and records/ into a given folder.

    Raises `RecordError` if the records lack a run, and the errors of reading and reporting.
    """
    results = Path(results).resolve()
    with scratch_folder(results, f".reference-{scale}-") as scratch:
        # Results without a scale lie beside the new reference, so that all files have their final relative paths.
        sources = Sources(scratch / results.name, Path(experiments), scale, reference=True)
        sources.own.mkdir(parents=True)
        for name in (*OF_NO_SCALE, sources.benchmark):
            (sources.results / name).symlink_to(results / name)
        for other in SHOWN:
            if scale != other and (there := reference_folder(results, other)).is_dir():
                reference_folder(sources.results, other).symlink_to(there)
        put(sources.own)
        _build(sources, scratch / "runs")
        return _install(sources.own, reference_folder(results, scale))


def _build(sources: Sources, runs: Path) -> None:
    folder = sources.own
    unpack(folder / RECORDS, runs)
    reference = read_reference(sources.results, sources.scale)
    for table in reference.tables:
        _write_table(sources, reference, table=table, runs=runs)
    collect_metrics(runs, folder / "metrics.csv", scale=sources.scale)
    write_provenance(runs, folder / "provenance.json", scale=sources.scale)
    for name in figures_of(sources):
        if folder_of(name, sources) == folder / "figures" and (name != "rates" or has_rates(sources)):
            draw_figures(sources, name)
    write_audit(audit(sources.experiments, sources.results, scale=sources.scale), sources.results / "audit")
    if sources.scale == SMALL:
        write_real(sources.results, sources.experiments)
    write_page(sources, folder / "report.html")


def _write_table(sources: Sources, reference: Reference, *, table: str, runs: Path) -> None:
    made = reference.tables[table]
    grid = made.cut(sources.grid(table), scale=sources.scale)
    filled = gather(grid, runs, scale=sources.scale, expected=made.runs, evaluations=made.evaluations)
    if filled.missing:
        lost, *_ = filled.missing
        raise RecordError(
            f"the records of the reference lack {made.runs[lost.cell]}, seed {lost.seed} of {lost.experiment} with "
            f"{lost.method} in {table} ({lost.reason}): `make reference` makes them anew"
        )
    laid = lay_out(filled)
    write_significance(filled, reference.folder / "significance" / f"{table}.csv", laid.comparisons)
    write_table(laid, reference.folder / "tables")


def _install(new: Path, place: Path) -> Path:
    """Replace a folder with another one on the same disk.

    One of the two remains after an error or an interrupt, but not after a kill between the two renames.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = new.with_name(f"{new.name}.old")
    try:
        if place.exists():
            os.replace(place, aside)
        os.replace(new, place)
    except BaseException:
        if aside.exists() and not place.exists():
            os.replace(aside, place)
        raise
    return place
