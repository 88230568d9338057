"""The whole audit: claims judged, forensics examined, both written."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from reproduction.records import write_text
from reproduction.report.audit import claims, findings, marks
from reproduction.report.audit.claims import (
    FAILS,
    HOLDS,
    UNDECIDED,
    UNMEASURED,
    UNRESOLVED,
    VERDICTS,
    Judged,
    OnReal,
    Worlds,
    judge,
    load_claims,
    on_real_model,
)
from reproduction.report.audit.findings import Finding
from reproduction.report.audit.forensics import digests, examine
from reproduction.report.audit.grim import EXCLUDED
from reproduction.report.audit.measured_values import count_names, table_names, theory_verdicts
from reproduction.report.audit.pairings import WILCOXON
from reproduction.report.audit.paper import paper_names
from reproduction.report.audit.real import real_names
from reproduction.report.collect import write_csv
from reproduction.report.documents import pipes

FOLDER = "audit"
HOW = (
    "Every verdict is computed from an expression over the paper's printed tables (`experiments/audit/claims.yaml`); "
    "the README beside that file says what the words mean. A number computed from printed ones is every value that "
    "their rounding allows, and a claim about it **holds** where some of these satisfy it. Two numbers printed alike "
    "are a tie, and a tie is no lead. *Ours* at the embedded scale compares small models on generated tasks with each "
    "other: it shows which way an ordering goes there, and neither confirms nor refutes the paper's accuracies."
)


@dataclass(frozen=True)
class Audit:
    """``judged`` in the order of the file; ``findings`` by check."""

    judged: Sequence[Judged]
    findings: Sequence[Finding]


def audit(experiments: Path, results: Path, *, scale: str) -> Audit:
    """Judge every claim of ``experiments``/audit, and examine the paper's numbers, beside what ``results`` holds.

    Raises `AuditError` where a file of the audit cannot be read or an expression cannot be evaluated. A measurement of
    ours that is not there is no error.
    """
    return Audit(
        judge_all(experiments, results, scale=scale),
        examine(paper_names(Path(experiments)), Path(results)),
    )


def judge_all(experiments: Path, results: Path, *, scale: str) -> list[Judged]:
    """The claims alone, in the order of the file; raises as `audit`."""
    sets, every = load_claims(Path(experiments) / FOLDER / "claims.yaml")
    paper = paper_names(Path(experiments))
    worlds = Worlds(
        paper=paper | sets,
        tables=table_names(Path(results), scale) | sets,
        counts=paper | sets | count_names(Path(results)),
        theory=theory_verdicts(Path(results)),
        real=sets | real_names(Path(results)),
        scale=scale,
    )
    return [judge(claim, worlds) for claim in every]


def read_on_real_model(experiments: Path, results: Path) -> list[OnReal]:
    """The claims that were measured on a real model, in the order of the file: what it says to each. Raises as
    `audit`.
    """
    sets, every = load_claims(Path(experiments) / FOLDER / "claims.yaml")
    names = sets | real_names(Path(results))
    found = (on_real_model(claim, names) for claim in every)
    return [each for each in found if each.found not in ("", UNMEASURED)]


def real_markdown(found: Iterable[OnReal]) -> str:
    """A table of what `read_on_real_model` found."""
    rows = [[f"“{each.claim.quote}” ({each.claim.place})", f"**{each.verdict}**", each.text] for each in found]
    return _prose(["The paper's claim", "Here", "How it is read, and what else"], rows)


def write_audit(found: Audit, folder: Path) -> list[Path]:
    """audit.csv, forensics.csv and audit.md into ``folder``; returns their paths."""
    folder = Path(folder)
    write_csv(folder / "audit.csv", claims.COLUMNS, map(asdict, found.judged))
    write_csv(folder / "forensics.csv", findings.COLUMNS, map(asdict, found.findings))
    write_text(folder / "audit.md", markdown(found))
    return [folder / name for name in ("audit.csv", "forensics.csv", "audit.md")]


def totals(found: Audit) -> str:
    """ "98 claims: 40 hold, …", how many of ours say what, and what a real model says where one was measured."""
    counted = Counter(each.verdict for each in found.judged)
    ours = Counter(f"{each.ours_verdict} [{each.ours_scale}]" for each in found.judged if each.ours_verdict)
    told = "; ".join(f"{number} {verdict}" for verdict, number in sorted(ours.items()))
    words = {HOLDS: "hold", FAILS: "do not hold", UNDECIDED: UNDECIDED}
    verdicts = ", ".join(f"{counted[verdict]} {words[verdict]}" for verdict in VERDICTS)
    return f"{len(found.judged)} claims: {verdicts}. Ours, for {ours.total()} of them: {told}.{_real_total(found)}"


def _real_total(found: Audit) -> str:
    counted = _measured(each.real_verdict for each in found.judged)
    in_part = sorted(verdict for verdict in counted if verdict.startswith(f"{HOLDS} "))
    words = {HOLDS: "hold"} | {verdict: verdict.replace(HOLDS, "hold", 1) for verdict in in_part}
    words |= {FAILS: "do not hold", UNRESOLVED: "are not resolved"}
    told = ", ".join(f"{counted[verdict]} {word}" for verdict, word in words.items())
    return f" On a real model, for {counted.total()} of them: {told}." if counted else ""


def _measured(verdicts: Iterable[str]) -> Counter[str]:
    return Counter(verdict for verdict in verdicts if verdict not in ("", UNMEASURED))


def markdown(found: Audit) -> str:
    """The audit for reading: totals, a table for each section of the paper, then the forensics."""
    parts = ["# The paper's claims, put to its own tables", HOW, totals(found)]
    for section, judged in groupby(found.judged, key=lambda each: each.section.split(", p. ")[0]):
        parts += [f"## {section}", _claims_table(list(judged))]
    parts += ["# Forensics", _forensics_summary(found.findings)]
    for check, own in groupby(found.findings, key=lambda each: each.check):
        parts += [f"## {check}", _findings_table(_worth_showing(list(own)))]
    return "\n\n".join(parts) + "\n"


def _claims_table(judged: Sequence[Judged]) -> str:
    rows = [
        [
            f"“{each.quote}”" + _page(each),
            f"**{each.verdict}**" if each.verdict != UNDECIDED else each.verdict,
            each.paper_value or "—",
            each.note or "—",
            _ours(each),
            _real(each),
        ]
        for each in judged
    ]
    return _prose(["Claim", "Verdict", "Computed", "How it was read, and what else", "Ours", "On a real model"], rows)


def _page(each: Judged) -> str:
    _, found, page = each.section.partition(", p. ")
    return f" (p. {page})" if found else ""


def _ours(each: Judged) -> str:
    if not each.ours_verdict:
        return "—"
    measured = f" ({each.ours})" if each.ours else ""
    return f"{each.ours_scale}: {each.ours_verdict}{measured}"


def _real(each: Judged) -> str:
    return f"{each.real_verdict}: {each.real}" if each.real_verdict not in ("", UNMEASURED) else UNMEASURED


def _forensics_summary(found: Iterable[Finding]) -> str:
    lines = [
        f"- {digest.check}: " + ", ".join(f"{number} × {kind}" for kind, number in digest.told.items())
        for digest in digests(found)
    ]
    return "\n".join(["How often each check found what; every row is in `forensics.csv`.", "", *lines])


def _worth_showing(own: list[Finding]) -> list[Finding]:
    """All of a check but the † rows: of these one test, for every mark and for what no pairing can explain."""
    shown = [
        each
        for each in own
        if each.check != marks.CHECK
        or (f"{WILCOXON}, two-sided" in each.assumption and each.kind not in (marks.BEHIND, marks.OPEN, marks.TIE))
        or each.kind in (marks.MISSING, marks.IMPOSSIBLE)
    ]
    return sorted(shown, key=lambda each: each.kind != EXCLUDED) if own[0].check == "GRIM" else shown


def _findings_table(own: Sequence[Finding]) -> str:
    rows = [
        [
            each.place,
            each.printed,
            each.assumption or "—",
            f"{each.quantity}: {each.low}" + (f" … {each.high}" if each.high != each.low else ""),
            each.finding,
        ]
        for each in own
    ]
    return _prose(["Where", "Printed", "Assumed", "Quantity", "Finding"], rows)


def _prose(headings: list[str], rows: list[list[str]]) -> str:
    return pipes(headings, rows, left=len(headings), labels=0)
