"""Measurements of the ID-LoRA paper's theory: Theorems 1 and 2, rank analysis, row clusters. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.records import write_text
from reproduction.theory import plots, rank, rows, theorem1, theorem2
from reproduction.theory.estimates import Point, Settings, csv_text
from reproduction.theory.report import Claim, Verdict, decide, holding, markdown, summary

__all__ = ["Claim", "Theory", "measure", "summary", "write"]


@dataclass(frozen=True)
class Theory(Settings):
    """Settings of the four studies."""

    theorem1: theorem1.Theorem1
    theorem2: theorem2.Theorem2
    rank: rank.Rank
    rows: rows.Rows


def measure(settings: Theory, bases: Path) -> dict[str, list[Point]]:
    """Compute every curve, by study. Deterministic given the settings' seeds and the weights in `bases`."""
    return {
        theorem1.STUDY: theorem1.run(settings.theorem1),
        theorem2.STUDY: theorem2.run(settings.theorem2),
        rank.STUDY: rank.run(settings.rank),
        rows.STUDY: rows.run(settings.rows, bases),
    }


def write(settings: Theory, claims: Sequence[Claim], *, bases: Path, out: Path) -> list[Verdict]:
    """Measure, decide `claims`, and write <study>.csv, verdicts.csv, theory.md, theorem1_assumptions.csv and figures/.

    The same settings and weights give the same bytes on one machine; rounding to six digits hides most differences in
    BLAS between machines. Raises `RecordError` or OSError if `out` cannot be written.
    """
    measured = measure(settings, bases)
    points = [point for study in measured.values() for point in study]
    verdicts = decide(claims, points)
    for study, curve in measured.items():
        write_text(out / f"{study}.csv", csv_text(curve, Point._fields))
    write_text(out / "verdicts.csv", csv_text(verdicts, Verdict._fields))
    table = holding(points)
    write_text(out / "theorem1_assumptions.csv", csv_text((row.values() for row in table), [*table[0]]))
    write_text(out / "theory.md", markdown(claims, verdicts, points))
    plots.draw(points, out / "figures")
    return verdicts
