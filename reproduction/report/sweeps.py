"""Pairwise comparisons of a sweep's methods (Tables 7 and 8): mean held-out loss and trained parameters."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from reproduction.records import write_text
from reproduction.report.cells import Filled
from reproduction.report.documents import document, pipes, write_csv
from reproduction.report.grid import UNTUNED
from reproduction.report.intervals import CONFIDENCE
from reproduction.report.measures import measure_of
from reproduction.report.significance import compare
from reproduction.report.standings import LOSS, SWEEPS, Row, pair_of, runs, widest_interval

COLUMNS = (
    "base", "method", "method_label", "trained", "value", "reference", "reference_label", "reference_trained",
    "reference_value", "column", "metric", "seeds", "seeds_ahead", "difference", "ci_low", "ci_high", "seeds_ci_low",
    "seeds_ci_high", "verdict",
)  # fmt: skip


def write_sweep(filled: Filled, folder: Path) -> list[Path]:
    """Write all pairs of a sweep as CSV and Markdown; returns the paths, none for a table that is no sweep or has no
    two methods with the loss.
    """
    name = SWEEPS.get(filled.grid.table)
    if name is None or not (rows := _rows(filled)):
        return []
    write_csv(folder / f"{name}.csv", COLUMNS, rows)
    write_text(folder / f"{name}.md", _markdown(rows, title=filled.grid.title))
    return [folder / f"{name}.csv", folder / f"{name}.md"]


def _rows(filled: Filled) -> list[Row]:
    """Return a row for each pair of trained methods of a base; methods with their own reference come first."""
    grid, rows = filled.grid, []
    trained = [method for method in grid.methods if method != UNTUNED]
    if not isinstance(grid.reference, str):
        trained.sort(key=lambda method: method not in grid.reference)
    for base in grid.bases:
        cells = [cell for method in trained if (cell := filled.cells.get((base, method, LOSS))) is not None]
        for pair in combinations(cells, 2):
            found = compare(*pair, alpha=grid.alpha)
            written = found.measure.written
            row = {name: getattr(found, name) for name in COLUMNS if hasattr(found, name)}
            row |= {name: written(getattr(found, name)) for name in ("difference", "ci_low", "ci_high")}
            row |= {"seeds_ci_low": "", "seeds_ci_high": ""}
            if found.seeds_ci:
                row |= dict(zip(("seeds_ci_low", "seeds_ci_high"), map(written, found.seeds_ci), strict=True))
            else:
                row["seeds_ahead"] = ""
            for side, cell in zip(("", "reference_"), pair, strict=True):
                (count, *_) = filled.parameters(base, cell.method, "parameters_trainable")
                row[f"{side or 'method_'}label"] = grid.label(cell.method, filled.scale)
                row |= {f"{side}trained": f"{count:.0f}", f"{side}value": written(cell.mean)}
            row = {name: str(value) for name, value in row.items()}
            rows.append(row | {"verdict": pair_of(row).verdict.split()[0]})
    return rows


def _markdown(rows: Sequence[Row], *, title: str) -> str:
    measure, lines = measure_of(rows[0]["metric"]), []
    for row in rows:
        values = measure.text(float(row["value"])), measure.text(float(row["reference_value"]))
        ends = (measure.text(end, signed=True) for end in widest_interval(row))
        difference = f"{measure.text(float(row['difference']), signed=True)} [{', '.join(ends)}]"
        counts = f"{int(row['trained']):,}", f"{int(row['reference_trained']):,}"
        ahead = f"{row['seeds_ahead']} of {row['seeds']}" if row["seeds_ahead"] else "—"
        lines.append([row["method_label"], row["reference_label"], *counts, *values, difference, ahead, row["verdict"]])
    headings = [
        "Method", "against", "# trained", "# trained (other)", measure.name, f"{measure.name} (other)", "difference",
        "seeds ahead", "verdict",
    ]  # fmt: skip
    return document(
        f"{title}, each against each",
        f"Mean held-out loss of the sources in {measure.unit}, lower is better, paired by item and seed: "
        f"{runs(map(pair_of, rows))}. {CONFIDENCE:.0%} intervals, over seeds and items where there are several seeds: "
        "with few seeds they are too narrow, of two far too narrow, and nothing is corrected for the number of pairs "
        f"({len(rows)}). Seeds ahead: those under which the method's mean is ahead. Level: the interval holds zero, or "
        "the seeds do not agree.",
        pipes(headings, lines),
    )
