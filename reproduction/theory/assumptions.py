"""Theorem 1 as the clusters move apart: in how many draws it holds, for each reading and setting; a table."""

import csv
import io
from collections.abc import Sequence
from itertools import groupby

from reproduction.theory.estimates import Point
from reproduction.theory.theorem1 import READINGS, STUDY

STATEMENTS = {"inequality_18_holds": "Clustered ≤ global - Δ (Eq. 18)", "clustered_not_worse": "Clustered ≤ global"}
NAMES = ("statement", "reading", "setting")

Row = dict[str, str]
"""`NAMES`, the number of ``draws``, and for each separation the draws in which the statement holds."""


def shares(points: Sequence[Point]) -> list[Row]:
    """A row for each statement, reading and setting that ``points`` have, in that order."""
    rows: dict[tuple[str, str, str], Row] = {}
    for p in points:
        if p.study == STUDY and p.x_name == "separation" and p.quantity in STATEMENTS:
            names = dict(zip(NAMES, (STATEMENTS[p.quantity], p.series, p.setting), strict=True))
            row = rows.setdefault((p.quantity, p.series, p.setting), names | {"draws": str(p.draws)})
            row[f"{p.x:g}"] = str(round(p.mean * p.draws))
    statements = list(STATEMENTS)
    return [rows[key] for key in sorted(rows, key=lambda key: (statements.index(key[0]), READINGS.index(key[1])))]


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for each statement; settings that are alike at every separation share a line."""
    xs = [name for name in rows[0] if name not in (*NAMES, "draws")]
    lines = []
    settings = {row["setting"] for row in rows}
    for statement, group in groupby(rows, key=lambda row: row["statement"]):
        alike: dict[tuple[str, ...], list[str]] = {}
        for row in group:
            alike.setdefault((row["reading"], *(row[x] for x in xs)), []).append(row["setting"])
        lines += [
            f"**{statement}**: in how many of {row['draws']} draws, by separation / spread within a cluster\n",
            f"| reading | setting | {' | '.join(xs)} |",
            "| --- | --- |" + " ---: |" * len(xs),
            *(
                f"| {reading} | {'all' if len(names) == len(settings) else ', '.join(names)} | {' | '.join(held)} |"
                for (reading, *held), names in alike.items()
            ),
            "",
        ]
    return "\n".join(lines)
