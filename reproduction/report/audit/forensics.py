"""What the printed numbers say about themselves: items, pairings, repeated rows, published scores, counts.

Each check gives findings; none accuses. A finding names its assumption, since another one may explain the number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.report.audit import consistency, grim, marks
from reproduction.report.audit.findings import Finding
from reproduction.report.audit.paper import rows

COUNT_FILES = ("table6.csv", "percentages.csv")
COUNTS = "counts recomputed"


def examine(paper: Mapping[str, Any], results: Path) -> list[Finding]:
    """Every finding over the paper's tables and facts (`paper.paper_names`), and the counts in ``results``/counts."""
    return [
        *recounted(results),
        *grim.findings(paper),
        *marks.findings(paper),
        *marks.over_runs(),
        *consistency.repeated_rows(paper),
        *consistency.pass_at_k(paper),
        *consistency.single_against_multi(paper),
        *consistency.published(paper),
    ]


def recounted(results: Path) -> list[Finding]:
    """The paper's counts and percentages beside ours, as results/counts has them; none where there is no such file."""
    found = []
    for name in COUNT_FILES:
        path = results / "counts" / name
        if path.is_file():
            found += [_recount(row) for row in rows(path) if row["printed"]]
    return found


def _recount(row: Mapping[str, str]) -> Finding:
    of_table6 = row["table"] == "table6"
    ours = row["trainable" if of_table6 else "params_pct_paper"]
    rank = f" r={row['rank']}" if of_table6 else ""
    convention = "" if of_table6 else "; frozen copies of A_i counted as parameters"
    return Finding(
        check=COUNTS,
        place=f"{row['table']} {row['base']} {row['method']}{rank}",
        printed=row["printed"],
        assumption=f"counted on the adapted model{convention}",
        quantity="trainable parameters" if of_table6 else "# Params (%)",
        low=ours,
        high=ours,
        finding=row["agree"],
    )


@dataclass(frozen=True)
class Digest:
    """How many findings of a check say what."""

    check: str
    told: dict[str, int]


def digests(findings: Iterable[Finding]) -> list[Digest]:
    """Per check, in the order of first appearance, how often each finding occurs, numbers in it left out."""
    counted: dict[str, dict[str, int]] = {}
    for each in findings:
        told = counted.setdefault(each.check, {})
        told[each.kind] = told.get(each.kind, 0) + 1
    return [Digest(check, told) for check, told in counted.items()]
