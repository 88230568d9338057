"""The whole of the theory: settings → curves → verdicts → files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.records import write_text
from reproduction.theory import assumptions, plots, rank, rows, theorem1, theorem2
from reproduction.theory.estimates import Point, csv_text
from reproduction.theory.verdicts import Claim, Verdict, decide
from reproduction.theory.words import report


@dataclass(frozen=True)
class Theory:
    """Settings of the four studies."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    theorem1: theorem1.Theorem1
    theorem2: theorem2.Theorem2
    rank: rank.Rank
    rows: rows.Rows


def measure(settings: Theory, bases: Path) -> dict[str, list[Point]]:
    """Every curve by study. Deterministic by the settings' seeds and the weights in ``bases``."""
    return {
        theorem1.STUDY: theorem1.run(settings.theorem1),
        theorem2.STUDY: theorem2.run(settings.theorem2),
        rank.STUDY: rank.run(settings.rank),
        rows.STUDY: rows.run(settings.rows, bases),
    }


def write(settings: Theory, claims: Sequence[Claim], *, bases: Path, out: Path) -> list[Verdict]:
    """Measure, decide ``claims``, and write to ``out``: <study>.csv, verdicts.csv, theory.md, the table
    theorem1_assumptions.csv and figures/*.{png,pdf}.

    The same settings and weights give the same bytes on one machine; six digits hide most of what BLAS differs in
    between machines. Raises `RecordError` or OSError where ``out`` cannot be written.
    """
    measured = measure(settings, bases)
    everything = [point for study in measured.values() for point in study]
    verdicts = decide(claims, everything)
    for study, curve in measured.items():
        write_text(out / f"{study}.csv", csv_text(curve, Point))
    write_text(out / "verdicts.csv", csv_text(verdicts, Verdict))
    shares = assumptions.shares(measured[theorem1.STUDY])
    write_text(out / "theorem1_assumptions.csv", assumptions.as_csv(shares))
    tables = {theorem1.STUDY: assumptions.as_markdown(shares)}
    write_text(out / "theory.md", report(claims, verdicts, tables))
    plots.draw(everything, out / "figures")
    return verdicts
