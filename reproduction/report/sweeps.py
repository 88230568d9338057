"""Each method of a sweep (Tables 7 and 8) against each other one in the mean held-out loss, with what both train.

Table 7 tests an ID-LoRA against one LoRA alone; at which count the one reaches the other needs all of them.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from reproduction.records import write_text
from reproduction.report.cells import Cell, Filled
from reproduction.report.collect import write_csv
from reproduction.report.documents import document, pipes
from reproduction.report.grid import UNTUNED
from reproduction.report.intervals import CONFIDENCE
from reproduction.report.measures import measure_of
from reproduction.report.reference import widest_interval
from reproduction.report.significance import compare
from reproduction.report.standings import LOSS, SWEEPS, Row, pair_of, runs

COLUMNS = (
    "base", "method", "method_label", "trained", "value", "reference", "reference_label", "reference_trained",
    "reference_value", "column", "metric", "seeds", "seeds_ahead", "difference", "ci_low", "ci_high", "seeds_ci_low",
    "seeds_ci_high", "verdict",
)  # fmt: skip


def write_sweep(filled: Filled, folder: Path) -> list[Path]:
    """Write all pairs of a sweep as CSV and Markdown into a folder; returns their paths, none where the table is no
    sweep or has no two methods with the loss.
    """
    name, rows = SWEEPS.get(filled.grid.table), sweep_rows(filled)
    if name is None or not rows:
        return []
    write_csv(folder / f"{name}.csv", COLUMNS, rows)
    write_text(folder / f"{name}.md", _markdown(rows, title=filled.grid.title))
    return [folder / f"{name}.csv", folder / f"{name}.md"]


def sweep_rows(filled: Filled) -> list[Row]:
    """A row for each pair of trained methods that both have the loss, base by base: the tests of `compare`, and the
    verdict of the interval over seeds and items (over items with one seed), level where the seeds do not agree.

    Where methods have a reference each, those that have one come first in a pair.
    """
    grid, rows = filled.grid, []
    trained = [method for method in grid.methods if method != UNTUNED]
    if not isinstance(grid.reference, str):
        trained.sort(key=lambda method: method not in grid.reference)
    for base in grid.bases:
        cells = [cell for method in trained if (cell := filled.cells.get((base, method, LOSS))) is not None]
        for pair in combinations(cells, 2):
            found = compare(*pair, alpha=grid.alpha)
            written = found.measure.written
            (low, high), over_seeds = (found.ci_low, found.ci_high), found.seeds_ci or ()
            row = {
                **{name: getattr(found, name) for name in ("base", "method", "reference", "column", "metric", "seeds")},
                **{"difference": written(found.difference), "ci_low": written(low), "ci_high": written(high)},
                **dict(zip(("seeds_ci_low", "seeds_ci_high"), map(written, over_seeds), strict=False)),
            }
            row["seeds_ahead"] = found.seeds_ahead if over_seeds else ""
            sides = ("method_label", "trained", "value"), ("reference_label", "reference_trained", "reference_value")
            for names, cell in zip(sides, pair, strict=True):
                row |= dict(zip(names, _told(filled, cell), strict=True))
            row = {name: str(row.get(name, "")) for name in COLUMNS}
            rows.append(row | {"verdict": pair_of(row).verdict.split()[0]})
    return rows


def _told(filled: Filled, cell: Cell) -> tuple[str, str, float]:
    """A method's label, how many parameters it trains, and its mean loss."""
    (count, *_) = filled.parameters(cell.base, cell.method, "parameters_trainable")
    return filled.grid.label(cell.method, filled.scale), f"{count:.0f}", cell.measure.written(cell.mean)


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
