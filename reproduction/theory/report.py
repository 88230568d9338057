"""Verdicts on claims, counted from the points of the curves, and theory.md with verdicts in words and tables.

A statement is counted in every draw of every point. A statement about expectations (22) is counted in points, by
whether the interval of the difference excludes zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from reproduction.theory import rank, rows, theorem1, theorem2
from reproduction.theory.estimates import ZERO, Point, Settings, number

HOLDS, PARTLY, FAILS, UNDECIDED = "holds", "holds in part", "does not hold", "undecided"
HEADINGS = {
    theorem1.STUDY: "Theorem 1: clustered against global decomposition",
    theorem2.STUDY: "Theorem 2: global against cluster-local pivots",
    rank.STUDY: "§4.2: the rank of the update",
    rows.STUDY: "§4.1: do rows of W cluster?",
}
INTRODUCTION = """# The paper's theory, measured

Written by `scripts/theory.py` from the curves in this folder; every count, number and verdict below is computed. What
is drawn, what the readings and settings mean, and where the paper is silent: `experiments/theory/README.md`.

A claim is counted in every draw at every point of its curve or, where it is about expectations, in points whose 95 %
interval leaves out zero. **holds**: in all of them; **does not hold**: in none; **holds in part**: in some, which for a
statement about all cases is a refutation; **undecided**: no interval leaves out zero.
"""
STATEMENTS = {"inequality_18_holds": "Clustered ≤ global - Δ (Eq. 18)", "clustered_not_worse": "Clustered ≤ global"}
"""Statements in Theorem 1's table, by deciding quantity."""


@dataclass(frozen=True)
class Claim(Settings):
    """A statement and the quantity that decides it; see `experiments/theory/claims.yaml` for the fields."""

    name: str
    study: str
    source: str
    statement: str
    quantity: str
    beside: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    signed: bool = False
    why: str = ""


class Verdict(NamedTuple):
    """Verdict on one claim in one setting and series: it holds in `holds` of `of` `unit`; related numbers."""

    study: str
    claim: str
    source: str
    statement: str
    setting: str
    series: str
    verdict: str
    holds: int
    of: int
    unit: str
    numbers: str


def decide(claims: Sequence[Claim], measured: Sequence[Point]) -> list[Verdict]:
    """Return the verdict on every claim in every setting and series that has its quantity.

    `holds`: in all; `does not hold`: in none; `holds in part`: in some; `undecided`, for expectations: no interval
    excludes zero. Raises ValueError for a claim without a measurement.
    """
    found = []
    for claim in claims:
        curves: dict[tuple[str, str], list[Point]] = {}
        for p in measured:
            if p.study == claim.study and (not claim.series or p.series in claim.series):
                curves.setdefault((p.setting, p.series), []).append(p)
        verdicts = [
            _verdict(claim, curve) for curve in curves.values() if any(p.quantity == claim.quantity for p in curve)
        ]
        if not verdicts:
            raise ValueError(f"nothing measures {claim.quantity!r} of {claim.study!r}, which decides {claim.name!r}")
        found += verdicts
    return found


def _verdict(claim: Claim, curve: Sequence[Point]) -> Verdict:
    deciding = [p for p in curve if p.quantity == claim.quantity]
    numbers = [_range(name, curve) for name in claim.beside]
    for name in claim.totals:
        total = round(sum(p.mean * p.draws for p in curve if p.quantity == name))
        numbers.append(f"{name.replace('_', ' ')}: {total} in all")
    if claim.signed:
        holds, other = sum(p.low > ZERO for p in deciding), sum(p.high < -ZERO for p in deciding)
        of, unit, undecided = len(deciding), "points", len(deciding) - holds - other
        numbers = [f"the other way at {other}", f"undecided at {undecided}", *numbers]
    else:
        holds, of = sum(round(p.mean * p.draws) for p in deciding), sum(p.draws for p in deciding)
        unit, undecided = "draws", 0
    word = UNDECIDED if undecided == of else HOLDS if holds == of else FAILS if holds == 0 else PARTLY
    return Verdict(
        claim.study, claim.name, claim.source, claim.statement, deciding[0].setting, deciding[0].series,
        word, holds, of, f"{unit} along {deciding[0].x_name}", "; ".join(numbers),
    )  # fmt: skip


def _range(name: str, curve: Sequence[Point]) -> str:
    means = [p.mean for p in curve if p.quantity == name]
    low, high = number(min(means), 3), number(max(means), 3)
    return f"{name.replace('_', ' ')} {low}" + (f" … {high}" if high != low else "")


def holding(points: Sequence[Point]) -> list[dict[str, str]]:
    """Count draws in which Theorem 1 holds: a row per statement, reading and setting, a column per separation."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for p in points:
        if p.study == theorem1.STUDY and p.x_name == "separation" and p.quantity in STATEMENTS:
            names = {"statement": STATEMENTS[p.quantity], "reading": p.series, "setting": p.setting}
            row = rows.setdefault((p.quantity, p.series, p.setting), names | {"draws": str(p.draws)})
            row[f"{p.x:g}"] = str(round(p.mean * p.draws))
    order = [(statement, reading) for statement in STATEMENTS for reading in theorem1.READINGS]
    return [rows[key] for key in sorted(rows, key=lambda key: order.index(key[:2]))]


def holding_markdown(rows: Sequence[dict[str, str]]) -> str:
    """Format `holding` as one table per statement; settings with equal counts share a line."""
    xs, settings, lines = [*rows[0]][4:], {row["setting"] for row in rows}, []
    for statement, group in groupby(rows, key=lambda row: row["statement"]):
        alike: dict[tuple[str, ...], list[str]] = {}
        for row in group:
            alike.setdefault((row["reading"], *(row[x] for x in xs)), []).append(row["setting"])
        lines += [
            f"**{statement}**: in how many of {rows[0]['draws']} draws, by separation / spread within a cluster\n",
            f"| reading | setting | {' | '.join(xs)} |",
            "| --- | --- |" + " ---: |" * len(xs),
            *(
                f"| {reading} | {'all' if len(names) == len(settings) else ', '.join(names)} | {' | '.join(held)} |"
                for (reading, *held), names in alike.items()
            ),
            "",
        ]
    return "\n".join(lines)


def markdown(claims: Sequence[Claim], verdicts: Sequence[Verdict], points: Sequence[Point]) -> str:
    """Return theory.md: each study's claims and counts, and for the theorems differences between settings."""
    parts = [INTRODUCTION]
    by_claim = {name: list(group) for name, group in groupby(verdicts, key=lambda each: each.claim)}
    for study, heading in HEADINGS.items():
        mine = [claim for claim in claims if claim.study == study]
        bullets = [f"- {claim.statement} ({claim.source}): {summary(by_claim[claim.name])}" for claim in mine]
        parts += [f"## {heading}\n", "\n".join(bullets)]
        if study == theorem1.STUDY:
            parts += ["\n### Where it holds\n", holding_markdown(holding(points)).rstrip()]
        if study in (theorem1.STUDY, theorem2.STUDY):
            changes = [line for claim in mine for line in _changes(by_claim[claim.name])]
            parts += ["\n### What changes beside the first setting\n", "\n".join(changes or ["Nothing."])]
        parts.append("\n### The counts\n")
        for claim in mine:
            parts.append(f"**{claim.statement}** ({claim.source}). {claim.why}".rstrip() + "\n")
            parts.append("| setting | series | verdict | in | means along the curve |\n| --- | --- | --- | --- | --- |")
            parts += [
                f"| {v.setting} | {v.series} | {v.verdict} | {v.holds} of {v.of} {v.unit} | {v.numbers} |"
                for v in by_claim[claim.name]
            ]
            parts[-1] += "\n"
    return "\n".join(parts)


def summary(verdicts: Sequence[Verdict]) -> str:
    """Summarise a claim's verdicts over all settings, by series unless all agree."""
    if len({each.verdict for each in verdicts}) == 1:
        return _in_words(verdicts) + "."
    series = dict.fromkeys(each.series for each in verdicts)
    return ". ".join(f"*{name}* {_in_words([v for v in verdicts if v.series == name])}" for name in series) + "."


def _in_words(verdicts: Sequence[Verdict]) -> str:
    settings = {word: [v.setting for v in verdicts if v.verdict == word] for word in (v.verdict for v in verdicts)}
    if len(settings) > 1:
        return "; ".join(f"{word} with {', '.join(names)}" for word, names in settings.items())
    ((word, names),) = settings.items()
    if len(names) == 1:
        return f"{word} in the one setting"
    return f"{word} in {'any of' if word == FAILS else 'all'} {len(names)} settings"


def _changes(verdicts: Sequence[Verdict]) -> list[str]:
    """List settings whose verdict differs from that of the first setting of the series."""
    base: dict[str, Verdict] = {}
    return [
        f"- {each.statement}, *{each.series}*: {first.verdict} with {first.setting} ({first.holds} of {first.of}), "
        f"{each.verdict} with {each.setting} ({each.holds} of {each.of})."
        for each in verdicts
        if each.verdict != (first := base.setdefault(each.series, each)).verdict
    ]
