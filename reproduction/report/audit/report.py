"""The whole audit: judged claims and findings on the printed numbers, as CSV and Markdown."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import jinja2

from reproduction.records import write_text
from reproduction.report.audit import forensics
from reproduction.report.audit.claims import COLUMNS, FAILS, HOLDS, UNDECIDED, UNMEASURED, UNRESOLVED, OnReal, judge_all
from reproduction.report.audit.forensics import FINDING_COLUMNS, Finding, examine
from reproduction.report.audit.names import paper_names
from reproduction.report.audit.pairings import WILCOXON
from reproduction.report.documents import pipes, write_csv

Row = dict[str, str]


@dataclass(frozen=True)
class Audit:
    """``judged`` claims in the order of claims.yaml, with the columns of audit.csv; ``findings`` by check."""

    judged: Sequence[Row]
    findings: Sequence[Finding]


def audit(experiments: Path, results: Path, *, scale: str) -> Audit:
    """Judge every claim of ``experiments``/audit and examine the paper's numbers, with our ``results`` beside them.

    Raises `AuditError` if a file of the audit cannot be read or an expression cannot be evaluated. A missing
    measurement of ours is no error.
    """
    judged = judge_all(Path(experiments), Path(results), scale=scale)
    return Audit(judged, examine(paper_names(Path(experiments)), Path(results)))


def write_audit(result: Audit, folder: Path) -> list[Path]:
    """Write audit.csv, forensics.csv and audit.md into ``folder``; returns their paths."""
    write_csv(folder / "audit.csv", COLUMNS, result.judged)
    write_csv(folder / "forensics.csv", FINDING_COLUMNS, map(asdict, result.findings))
    write_text(folder / "audit.md", markdown(result))
    return [folder / name for name in ("audit.csv", "forensics.csv", "audit.md")]


def totals(result: Audit) -> str:
    """Summarise the verdicts: "98 claims: 40 hold, …", then those on our results and on a real model."""
    counted = Counter(row["verdict"] for row in result.judged)
    ours = Counter(f"{row['ours_verdict']} [{row['ours_scale']}]" for row in result.judged if row["ours_verdict"])
    measured = "; ".join(f"{number} {verdict}" for verdict, number in sorted(ours.items()))
    verdicts = f"{counted[HOLDS]} hold, {counted[FAILS]} do not hold, {counted[UNDECIDED]} {UNDECIDED}"
    of_ours = f"{len(result.judged)} claims: {verdicts}. Ours, for {ours.total()} of them: {measured}."
    real = Counter(row["real_verdict"] for row in result.judged if row["real_verdict"] not in ("", UNMEASURED))
    in_part = sorted(verdict for verdict in real if verdict.startswith(f"{HOLDS} "))
    words = {verdict: verdict.replace(HOLDS, "hold", 1) for verdict in (HOLDS, *in_part)}
    words |= {FAILS: "do not hold", UNRESOLVED: "are not resolved"}
    on_real = ", ".join(f"{real[verdict]} {word}" for verdict, word in words.items())
    return of_ours + (f" On a real model, for {real.total()} of them: {on_real}." if real else "")


def real_markdown(claims: Iterable[OnReal]) -> str:
    """Return a table of the claims measured on a real model (`read_on_real_model`)."""
    rows = [[f"“{each.claim.quote}” ({each.claim.place})", f"**{each.verdict}**", each.text] for each in claims]
    return pipes(["The paper's claim", "Here", "How it is read, and what else"], rows, left=3, labels=0)


def markdown(result: Audit) -> str:
    """Return the audit as Markdown: totals, a table for each section of the paper, then the forensics."""
    checks = []
    for check in dict.fromkeys(each.check for each in result.findings):
        own = [each for each in result.findings if each.check == check]
        shown = sorted(filter(_is_shown, own), key=lambda each: each.kind != forensics.EXCLUDED)
        checks.append((check, Counter(each.kind for each in own), shown))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")
    claims = groupby(result.judged, key=lambda row: row["section"].partition(", p. ")[0])
    return environment.get_template("audit.md").render(totals=totals(result), claims=claims, checks=checks)


def _is_shown(each: Finding) -> bool:
    """Whether the report shows a finding: of the † rows only those of one test, plus missing and impossible marks."""
    if each.check != forensics.MARKS or each.kind in (forensics.MISSING, forensics.IMPOSSIBLE):
        return True
    quiet = (forensics.BEHIND, forensics.OPEN, forensics.TIE)
    return f"{WILCOXON}, two-sided" in each.assumption and each.kind not in quiet
