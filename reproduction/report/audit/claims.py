"""Claims of the paper as data, and the verdict of the tables on each. All verdicts are computed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reproduction.report.audit.expressions import Comparison, ExpressionError, Outcome, evaluate
from reproduction.report.audit.names import (
    AuditError,
    Measured,
    NotMeasured,
    count_names,
    paper_names,
    read_csv,
    real_names,
    table_names,
)
from reproduction.report.audit.quantities import Quantity, exact
from reproduction.report.grid import EMBEDDED, SMALL, kind_of
from reproduction.report.standings import ONE_RUN

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "cannot be decided from the tables"
VERDICTS = {True: HOLDS, False: FAILS, None: UNDECIDED}
KINDS = ("number", "ordering", "setting", "theorem")
UNRESOLVED, UNMEASURED, NOT_RUN = "not resolved here", "—", "not run"
SAME, OPPOSITE, NOISE, NOT_YET = "same", "opposite", "within noise", "not measured yet"
SHOWN_FAILURES = 4

OVER = {
    "": {"": ""},
    "several": {"at each method's best rate": "2", "at the paper's rate": "2p", "after two epochs": "l"},
    "single": {"at each method's best rate": "1", "at the paper's rates": "1p"},
}
"""The blocks on which a reading is evaluated, for methods trained on several tasks and on single ones: description →
suffix of the names ``l`` and ``s``. The first block decides.
"""

COLUMNS = (
    "id", "section", "quote", "claim_kind", "expression", "paper_value", "verdict", "note", "ours", "ours_scale",
    "ours_verdict", "real", "real_verdict",
)  # fmt: skip
"""Columns of audit.csv."""

Names = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One interpretation of a claim as an expression; ``over`` is a key of `OVER`."""

    reading: str
    expression: str
    over: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the paper with a number or an ordering; experiments/audit/README.md describes each field.

    Exactly one of ``expression`` and ``reason`` is given. ``ours`` has at most one key: "tables" or "counts" with an
    expression, or "theory" with claims of results/theory/verdicts.csv. ``real`` holds readings in losses and scores of
    the small scale; the first decides. ``real_only`` names the part of the sentence that these readings cover.
    """

    id: str
    section: str
    quote: str
    kind: str
    page: str | int | None = None
    reading: str = ""
    expression: str = ""
    reason: str = ""
    readings: tuple[Reading, ...] = ()
    ours: Mapping[str, Any] = field(default_factory=dict)
    real: tuple[Reading, ...] = ()
    real_only: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise AuditError(f"claim {self.id}: kind is {self.kind!r}; the kinds are {', '.join(KINDS)}")
        if bool(self.expression) == bool(self.reason):
            raise AuditError(f"claim {self.id} needs an expression or the reason why no table decides it, not both")
        if len(self.ours) > 1 or set(self.ours) - {"tables", "counts", "theory"}:
            raise AuditError(f"claim {self.id}: ours is {dict(self.ours)}; give one of tables, counts, theory")
        if unknown := {each.over for each in self.real} - OVER.keys():
            raise AuditError(f"claim {self.id}: over is {', '.join(unknown)}; it is one of several, single")

    @property
    def place(self) -> str:
        """The place in the paper: "§5.4 Efficiency Analysis, p. 7", "Table 1, p. 6", "Appendix B.2"."""
        section = f"§{self.section}" if self.section[0].isdigit() else self.section
        return section if self.page is None else f"{section}, p. {self.page}"

    def outcome(self, expression: str, names: Names) -> Outcome:
        """Evaluate an expression of this claim. Raises `AuditError` with the claim's id if evaluation fails."""
        try:
            return evaluate(expression, names)
        except ExpressionError as error:
            raise AuditError(f"claim {self.id}: {error}") from error


@dataclass(frozen=True)
class RealReading:
    """One reading evaluated on a real model: ``found`` is `HOLDS`, `FAILS`, `UNRESOLVED` or `UNMEASURED`."""

    text: str
    found: str
    tally: str = NOT_RUN
    comparisons: tuple[Comparison, ...] = ()

    @property
    def values(self) -> list[Measured]:
        """All losses and scores in the comparisons."""
        return [side for each in self.comparisons for side in (each.left, each.right) if isinstance(side, Measured)]

    @property
    def in_loss(self) -> bool:
        """Whether only held-out losses are compared."""
        return bool(self.values) and all(value.is_loss for value in self.values)

    @property
    def at_paper_rate(self) -> bool:
        return any(value.at_paper_rate for value in self.values)


@dataclass(frozen=True)
class OnReal:
    """A claim and the result of each of its readings on a real model."""

    claim: Claim
    readings: tuple[RealReading, ...]

    @property
    def found(self) -> str:
        """The result of the first reading, "" without readings; `UNRESOLVED` if only later readings were measured."""
        found = [each.found for each in self.readings]
        if not found:
            return ""
        return UNRESOLVED if found[0] == UNMEASURED and set(found) != {UNMEASURED} else found[0]

    @property
    def verdict(self) -> str:
        """`found`, and the part of the sentence that it covers."""
        return self._of_claim(self.found)

    @property
    def text(self) -> str:
        """The first reading with its tally; later readings with their own verdicts."""
        if self.found in ("", UNMEASURED):
            return "".join(each.text for each in self.readings[:1])
        first, *rest = self.readings
        beside = (
            f"{each.text}: {NOT_RUN}"
            if each.found == UNMEASURED
            else f"{each.text}: {self._of_claim(each.found)} ({each.tally})"
            for each in rest
        )
        return "; ".join([f"{first.text} ({first.tally})", *beside])

    def _of_claim(self, found: str) -> str:
        return f"{found} {self.claim.real_only}".rstrip() if found == HOLDS else found


def load_claims(path: Path) -> tuple[dict[str, list[Any]], list[Claim]]:
    """Return the sets and the claims of claims.yaml.

    Raises `AuditError` if the file cannot be read, has an unknown field, or contains an id twice.
    """
    try:
        data = yaml.load(Path(path).read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise AuditError(f"the audit cannot read {path}: {error}") from error
    claims: dict[str, Claim] = {}
    for entry in data["claims"]:
        try:
            lists = {name: tuple(Reading(**each) for each in entry.get(name, ())) for name in ("readings", "real")}
            claim = Claim(**entry | lists)
        except TypeError as error:
            raise AuditError(f"{path}, claim {entry.get('id')}: {error}") from error
        if claim.id in claims:
            raise AuditError(f"{path} names {claim.id} more than once")
        claims[claim.id] = claim
    return {name: _members(members) for name, members in data["sets"].items()}, list(claims.values())


def judge_all(experiments: Path, results: Path, *, scale: str) -> list[dict[str, str]]:
    """Return a row of audit.csv for every claim, judged on the paper's tables and on our ``results``.

    Raises `AuditError` if a file of the audit cannot be read or an expression cannot be evaluated. A missing
    measurement of ours is no error.
    """
    sets, claims = load_claims(experiments / "audit" / "claims.yaml")
    paper = paper_names(experiments) | sets
    ours = {"tables": table_names(results, scale) | sets, "counts": paper | count_names(results)}
    theory: dict[str, list[dict[str, str]]] = {}
    path = results / "theory" / "verdicts.csv"
    for row in read_csv(path) if path.is_file() else []:
        theory.setdefault(row["claim"], []).append(row)
    kinds = {EMBEDDED: f"{scale} ({EMBEDDED} scale)", SMALL: f"{scale} (other models)"}
    scales = {"tables": kinds.get(kind_of(scale), scale), "counts": "exact counts", "theory": "simulation"}
    rows = []
    for claim, real in zip(claims, _on_real_model(claims, sets | real_names(results)), strict=True):
        outcome = claim.outcome(claim.expression, paper) if claim.expression else None
        row = dict.fromkeys(COLUMNS, "") | {
            "id": claim.id,
            "section": claim.place,
            "quote": claim.quote,
            "claim_kind": claim.kind,
            "expression": " ".join(claim.expression.split()),
            "paper_value": outcome.value if outcome else "",
            "verdict": VERDICTS[outcome and outcome.truth],
            "note": _note(claim, outcome, paper),
            "real": real.text,
            "real_verdict": real.verdict,
        }
        for kind, given in claim.ours.items():
            value, found = _theory(given, theory) if kind == "theory" else _ours(claim, kind, ours[kind])
            row |= {"ours": value, "ours_scale": scales[kind], "ours_verdict": found}
        rows.append(row)
    return rows


def read_on_real_model(experiments: Path, results: Path) -> list[OnReal]:
    """Return the claims that were measured on a real model, with the result. Raises `AuditError`."""
    sets, claims = load_claims(experiments / "audit" / "claims.yaml")
    found = _on_real_model(claims, sets | real_names(results))
    return [each for each in found if each.found not in ("", UNMEASURED)]


def _note(claim: Claim, outcome: Outcome | None, paper: Names) -> str:
    """Describe how the sentence was read, what contradicts it, and the verdicts of the other readings."""
    parts = [claim.reason or claim.reading]
    if outcome and outcome.truth is False:
        parts.append(_failures(outcome.comparisons))
    for reading in claim.readings:
        other = claim.outcome(reading.expression, paper)
        parts.append(f"{reading.reading}: {VERDICTS[other.truth]} ({other.value})")
    return "; ".join(filter(None, parts))


def _failures(comparisons: Sequence[Comparison]) -> str:
    """List the false comparisons between printed numbers: cells and numbers."""
    shown = []
    for each in comparisons:
        left, right = each.left, each.right
        if each.truth is False and all(isinstance(side, Quantity) and side.cell for side in (left, right)):
            tie = " (a tie as printed)" if left.value == right.value else ""
            shown.append(f"{left.cell} {left} against {right.cell.method} {right}{tie}")
    more = [f"and {len(shown) - SHOWN_FAILURES} more"] if len(shown) > SHOWN_FAILURES else []
    return f"not {', '.join(shown[:SHOWN_FAILURES] + more)}" if shown else ""


def _ours(claim: Claim, kind: str, names: Names) -> tuple[str, str]:
    """Return (measured value, verdict) from our tables or counts."""
    given = claim.ours[kind]
    try:
        outcome = claim.outcome(claim.expression if given == "same" else given, names)
    except NotMeasured:
        return "", NOT_YET
    if kind == "counts":
        return outcome.value, VERDICTS[outcome.truth]
    return _tally(outcome, none=NOISE), {True: SAME, False: OPPOSITE, None: NOISE}[outcome.truth]


def _theory(ids: Sequence[str], verdicts: Mapping[str, Sequence[Mapping[str, str]]]) -> tuple[str, str]:
    """Return (number of settings in which each statement of the theory study holds, verdict)."""
    if set(ids) - set(verdicts):
        return "", NOT_YET
    parts, found = [], set()
    for name in ids:
        own = [row["verdict"] for row in verdicts[name]]
        found |= set(own)
        parts.append(f"{verdicts[name][0]['statement']}: throughout in {own.count(HOLDS)} of {len(own)} settings")
    return "; ".join(parts), found.pop() if len(found) == 1 else "holds in part"


def _on_real_model(claims: Sequence[Claim], names: Names) -> Iterator[OnReal]:
    for claim in claims:
        yield OnReal(claim, tuple(found for each in claim.real for found in _read(claim, each, names)))


def _read(claim: Claim, reading: Reading, names: Names) -> Iterator[RealReading]:
    """Evaluate a reading on each of its blocks."""
    for place, (when, block) in enumerate(OVER[reading.over].items()):
        own = {letter: names[f"{letter}{block}"] for letter in "sl"} if block else {}
        text = when if place else ", ".join(filter(None, [reading.reading, when]))
        try:
            outcome = claim.outcome(reading.expression, {**names, **own})
        except NotMeasured:
            yield RealReading(text, UNMEASURED)
            continue
        seeds = {each.left.pair(each.right).seeds for each in outcome.comparisons if isinstance(each.left, Measured)}
        text += f" ({ONE_RUN})" if seeds == {1} else ""
        found = {True: HOLDS, False: FAILS, None: UNRESOLVED}[outcome.truth]
        yield RealReading(text, found, _tally(outcome, none="not resolved"), outcome.comparisons)


def _tally(outcome: Outcome, *, none: str) -> str:
    """Count the outcomes of the comparisons: "3 pairs: 1 as claimed, 1 the other way, 1 within noise"."""
    truths = [each.truth for each in outcome.comparisons if not isinstance(each.right, Quantity)]
    if not truths:
        return outcome.value
    words = {"as claimed": True, "the other way": False, none: None}
    shown = ", ".join(f"{truths.count(truth)} {word}" for word, truth in words.items() if truths.count(truth))
    return f"{len(truths)} pair{'' if len(truths) == 1 else 's'}: {shown}"


def _members(members: Sequence[Any]) -> list[Any]:
    """Convert the members of a set: words stay, numbers become quantities, lists are converted recursively."""
    return [
        _members(member) if isinstance(member, list) else exact(member) if isinstance(member, int) else member
        for member in members
    ]
