"""Claims of the paper as data, and what the tables say to each. Verdicts are computed; nobody types one."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reproduction.report.audit.expressions import Comparison, ExpressionError, Outcome, evaluate
from reproduction.report.audit.measured_values import COUNTED, SIMULATED, NotMeasured
from reproduction.report.audit.paper import AuditError
from reproduction.report.audit.quantities import Quantity, exact
from reproduction.report.audit.real import OVER, Value, with_runs
from reproduction.report.grid import EMBEDDED, SMALL, kind_of

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "cannot be decided from the tables"
VERDICTS = (HOLDS, FAILS, UNDECIDED)
NUMBER, ORDERING, SETTING, THEOREM = "number", "ordering", "setting", "theorem"
KINDS = (NUMBER, ORDERING, SETTING, THEOREM)
UNRESOLVED, UNMEASURED, NOT_RUN = "not resolved here", "—", "not run"
SAME, OPPOSITE, NOISE, NOT_YET = "same", "opposite", "within noise", "not measured yet"
IN_PART = "holds in part"
TABLES, COUNTS, THEORY = "tables", "counts", "theory"
SAME_EXPRESSION = "same"
SHOWN_FAILURES = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Another way to take the sentence, and its expression.

    ``over`` is a key of `OVER` where the reading is put to several blocks of the small scale, one after the other.
    """

    reading: str
    expression: str
    over: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the paper that carries a number or an ordering; experiments/audit/README.md says each field.

    Exactly one of ``expression`` and ``reason`` is given: a claim that no table decides says why.
    ``ours`` has one key: `TABLES` or `COUNTS` with an expression, `THEORY` with claims of
    results/theory/verdicts.csv; or none. ``real`` are readings in losses and scores of the small scale, the first of
    which decides. ``real_only`` says of how much of the sentence a reading that comes out true speaks ("against LoRA
    alone"), where that is not all of it.
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
        if len(self.ours) > 1 or set(self.ours) - {TABLES, COUNTS, THEORY}:
            raise AuditError(f"claim {self.id}: ours is {dict(self.ours)}; give one of {TABLES}, {COUNTS}, {THEORY}")
        if unknown := {each.over for each in self.real} - {"", *OVER}:
            raise AuditError(f"claim {self.id}: over is {', '.join(sorted(unknown))}; it is one of {', '.join(OVER)}")

    @property
    def place(self) -> str:
        """ "§5.4 Efficiency Analysis, p. 7", "Table 1, p. 6", "Appendix B.2"."""
        section = f"§{self.section}" if self.section[0].isdigit() else self.section
        return section if self.page is None else f"{section}, p. {self.page}"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim with its verdict, and what our own measurement says. The columns of audit.csv."""

    id: str
    section: str
    quote: str
    claim_kind: str
    expression: str
    paper_value: str
    verdict: str
    note: str
    ours: str
    ours_scale: str
    ours_verdict: str
    real: str
    real_verdict: str


COLUMNS = tuple(Judged.__annotations__)


@dataclass(frozen=True)
class Told:
    """One reading on a real model: how the claim is read, what is found (`HOLDS`, `FAILS`, `UNRESOLVED`, or
    `UNMEASURED`), and what the pairs say.
    """

    text: str
    found: str
    tally: str = ""
    comparisons: tuple[Comparison, ...] = ()

    @property
    def values(self) -> list[Value]:
        """Every loss or score that is compared."""
        sides = (side for each in self.comparisons for side in (each.left, each.right))
        return [side for side in sides if isinstance(side, Value)]

    @property
    def in_loss(self) -> bool:
        """Whether held-out losses are compared, and no scores."""
        return bool(self.values) and all(value.is_loss for value in self.values)

    @property
    def is_parity(self) -> bool:
        """Whether a score is asked to be no more than a margin behind another."""
        return any(each.symbol == "within" for each in self.comparisons)

    @property
    def at_paper_rate(self) -> bool:
        """Whether the methods were trained at the paper's rates."""
        return any(value.at_paper_rate for value in self.values)


@dataclass(frozen=True)
class OnReal:
    """A claim and what a real model says to each of its readings."""

    claim: Claim
    told: tuple[Told, ...]

    @property
    def found(self) -> str:
        """What the first reading finds. Where it was not run and another was, nothing is resolved; "" without any."""
        found = [each.found for each in self.told]
        if not found:
            return ""
        return UNRESOLVED if found[0] == UNMEASURED and set(found) != {UNMEASURED} else found[0]

    @property
    def verdict(self) -> str:
        """`found`, and of how much of the sentence it speaks."""
        return self._word(self.found)

    @property
    def text(self) -> str:
        """How the claim is read and what the pairs say; readings after the first with their own verdicts."""
        if not self.told:
            return ""
        first, *rest = self.told
        if self.found == UNMEASURED:
            return first.text
        return "; ".join([f"{first.text} ({first.tally or NOT_RUN})", *map(self._beside, rest)])

    @property
    def values(self) -> list[Value]:
        """Every loss or score that a reading compares."""
        return [value for each in self.told for value in each.values]

    def _beside(self, told: Told) -> str:
        if told.found == UNMEASURED:
            return f"{told.text}: {NOT_RUN}"
        return f"{told.text}: {self._word(told.found)} ({told.tally})"

    def _word(self, found: str) -> str:
        return f"{found} {self.claim.real_only}".rstrip() if found == HOLDS else found


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """The names that expressions see, by what they are about. ``theory`` maps claim → rows of verdicts.csv."""

    paper: Mapping[str, Any]
    tables: Mapping[str, Any]
    counts: Mapping[str, Any]
    theory: Mapping[str, Sequence[Mapping[str, str]]]
    real: Mapping[str, Any]
    scale: str


def load_claims(path: Path) -> tuple[dict[str, list[Any]], list[Claim]]:
    """The sets and the claims of claims.yaml.

    Raises `AuditError` where it cannot be read, has an unknown field, or names a claim twice.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditError(f"the audit needs {path}, which cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise AuditError(f"{path} is not YAML: {error}") from error
    claims = []
    for entry in data["claims"]:
        try:
            lists = {name: tuple(Reading(**each) for each in entry.get(name, ())) for name in ("readings", "real")}
            claims.append(Claim(**entry | lists))
        except TypeError as error:
            raise AuditError(f"{path}, claim {entry.get('id')}: {error}") from error
    ids = [claim.id for claim in claims]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise AuditError(f"{path} names {', '.join(twice)} more than once")
    return {name: _values(members) for name, members in data["sets"].items()}, claims


def judge(claim: Claim, worlds: Worlds) -> Judged:
    """Put a claim to the paper's tables and to our measurements.

    Raises `AuditError` with the claim's id where an expression cannot be evaluated.
    """
    outcome = _outcome(claim, claim.expression, worlds.paper) if claim.expression else None
    ours, scale, ours_verdict = _ours(claim, worlds)
    real = on_real_model(claim, worlds.real)
    return Judged(
        id=claim.id,
        section=claim.place,
        quote=claim.quote,
        claim_kind=claim.kind,
        expression=" ".join(claim.expression.split()),
        paper_value=outcome.value if outcome else "",
        verdict=verdict(outcome),
        note=_note(claim, outcome, worlds.paper),
        ours=ours,
        ours_scale=scale,
        ours_verdict=ours_verdict,
        real=real.text,
        real_verdict=real.verdict,
    )


def verdict(outcome: Outcome | None) -> str:
    """`HOLDS` or `FAILS` as the expression came out; `UNDECIDED` where there is none."""
    if outcome is None or outcome.truth is None:
        return UNDECIDED
    return HOLDS if outcome.truth else FAILS


def _note(claim: Claim, outcome: Outcome | None, paper: Mapping[str, Any]) -> str:
    """How the sentence was read, what it fails by, and what it would be under the other readings."""
    parts = [claim.reason or claim.reading]
    if outcome is not None and outcome.truth is False:
        parts.append(_failures(outcome.comparisons))
    for reading in claim.readings:
        other = _outcome(claim, reading.expression, paper)
        parts.append(f"{reading.reading}: {verdict(other)} ({other.value})")
    return "; ".join(part for part in parts if part)


def _failures(comparisons: Sequence[Comparison]) -> str:
    """The comparisons between printed numbers that came out false: which cells, which numbers."""
    failed = [each for each in comparisons if each.truth is False and _printed(each.left) and _printed(each.right)]
    shown = [f"{each.left.cell} {each.left} against {_against(each)}" for each in failed[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        shown.append(f"and {len(failed) - SHOWN_FAILURES} more")
    return f"not {', '.join(shown)}" if shown else ""


def _against(each: Comparison) -> str:
    tie = " (a tie as printed)" if each.left.value == each.right.value else ""
    return f"{each.right.cell.method} {each.right}{tie}"


def _printed(side: Any) -> bool:
    return isinstance(side, Quantity) and side.cell is not None


def _ours(claim: Claim, worlds: Worlds) -> tuple[str, str, str]:
    """(what we measured, at which scale, what it says)."""
    for about, given in claim.ours.items():
        if about == THEORY:
            return _theory(given, worlds.theory)
        names, scale = (worlds.tables, _scale_name(worlds.scale)) if about == TABLES else (worlds.counts, COUNTED)
        try:
            outcome = _outcome(claim, claim.expression if given == SAME_EXPRESSION else given, names)
        except NotMeasured:
            return "", scale, NOT_YET
        if about == COUNTS:
            return outcome.value, scale, verdict(outcome)
        return _tally(outcome), scale, {True: SAME, False: OPPOSITE, None: NOISE}[outcome.truth]
    return "", "", ""


def on_real_model(claim: Claim, names: Mapping[str, Any]) -> OnReal:
    """What the small scale's model says of a claim, reading by reading. Raises `AuditError` as `judge`."""
    return OnReal(claim, tuple(each for reading in claim.real for each in _told(claim, reading, names)))


def _told(claim: Claim, reading: Reading, names: Mapping[str, Any]) -> Iterator[Told]:
    """The reading, in each of the blocks that it is put to."""
    blocks = OVER[reading.over] if reading.over else {"": ""}
    for place, (when, block) in enumerate(blocks.items()):
        own = {letter: names[f"{letter}{block}"] for letter in "sl"} if block else {}
        text = when if place else ", ".join(filter(None, [reading.reading, when]))
        try:
            outcome = _outcome(claim, reading.expression, names | own)
        except NotMeasured:
            yield Told(text, UNMEASURED)
            continue
        found = {True: HOLDS, False: FAILS, None: UNRESOLVED}[outcome.truth]
        tally = _tally(outcome, none="not resolved")
        yield Told(with_runs(text, outcome.comparisons), found, tally, outcome.comparisons)


def _scale_name(scale: str) -> str:
    return {EMBEDDED: f"{scale} ({EMBEDDED} scale)", SMALL: f"{scale} (other models)"}.get(kind_of(scale), scale)


def _tally(outcome: Outcome, *, none: str = "within noise") -> str:
    truths = [each.truth for each in outcome.comparisons if not isinstance(each.right, Quantity)]
    if not truths:
        return outcome.value
    told = {"as claimed": True, "the other way": False, none: None}
    shown = ", ".join(f"{truths.count(truth)} {words}" for words, truth in told.items() if truths.count(truth))
    return f"{len(truths)} pair{'' if len(truths) == 1 else 's'}: {shown}"


def _theory(ids: Sequence[str], verdicts: Mapping[str, Sequence[Mapping[str, str]]]) -> tuple[str, str, str]:
    """In how many of a theory study's settings each statement holds throughout; in all, in none, or in part."""
    if missing := set(ids) - set(verdicts):
        log.info("results/theory has no %s", ", ".join(sorted(missing)))
        return "", SIMULATED, NOT_YET
    told, found = [], set()
    for name in ids:
        own = [row["verdict"] for row in verdicts[name]]
        found |= set(own)
        told.append(f"{verdicts[name][0]['statement']}: throughout in {own.count(HOLDS)} of {len(own)} settings")
    overall = found.pop() if len(found) == 1 else IN_PART
    return "; ".join(told), SIMULATED, overall


def _outcome(claim: Claim, expression: str, names: Mapping[str, Any]) -> Outcome:
    try:
        return evaluate(expression, names)
    except ExpressionError as error:
        raise AuditError(f"claim {claim.id}: {error}") from error


def _values(members: Sequence[Any]) -> list[Any]:
    """Members of a set: words as they are, numbers as quantities, lists of either."""
    return [
        _values(member) if isinstance(member, list) else exact(member) if isinstance(member, int) else member
        for member in members
    ]
