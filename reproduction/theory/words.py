"""theory.md: the verdicts in words and tables, all of it from the verdicts' own counts."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from reproduction.theory import rank, rows, theorem1, theorem2
from reproduction.theory.verdicts import FAILS, Claim, Verdict

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


def report(claims: Sequence[Claim], verdicts: Sequence[Verdict], tables: Mapping[str, str]) -> str:
    """The Markdown report: for each study its claims and its table of ``tables`` where it has one, and for the theorems
    what the other settings change.
    """
    parts = [INTRODUCTION]
    by_claim = {name: list(group) for name, group in groupby(verdicts, key=lambda each: each.claim)}
    for study, heading in HEADINGS.items():
        mine = [claim for claim in claims if claim.study == study]
        parts.append(f"## {heading}\n")
        parts.append(
            "\n".join(f"- {claim.statement} ({claim.source}): {summary(by_claim[claim.name])}" for claim in mine)
        )
        if study in tables:
            parts += ["\n### Where it holds\n", tables[study].rstrip()]
        if study in (theorem1.STUDY, theorem2.STUDY):
            changes = [line for claim in mine for line in _changes(by_claim[claim.name])]
            parts.append("\n### What changes beside the first setting\n")
            parts.append("\n".join(changes or ["Nothing."]))
        parts += ["\n### The counts\n", *(_section(claim, by_claim[claim.name]) for claim in mine)]
    return "\n".join(parts)


def summary(verdicts: Sequence[Verdict]) -> str:
    """What one claim comes to over all settings, series by series unless they all agree."""
    words = {each.verdict for each in verdicts}
    if len(words) == 1:
        return _in_all(words.pop(), len(verdicts)) + "."
    told = []
    for series in dict.fromkeys(each.series for each in verdicts):
        mine = [each for each in verdicts if each.series == series]
        words = {each.verdict for each in mine}
        if len(words) == 1:
            told.append(f"*{series}* {_in_all(words.pop(), len(mine))}")
        else:
            places = "; ".join(
                f"{word} with {', '.join(each.setting for each in mine if each.verdict == word)}"
                for word in dict.fromkeys(each.verdict for each in mine)
            )
            told.append(f"*{series}* {places}")
    return ". ".join(told) + "."


def _in_all(word: str, settings: int) -> str:
    if settings == 1:
        return f"{word} in the one setting"
    return f"{word} in any of {settings} settings" if word == FAILS else f"{word} in all {settings} settings"


def _section(claim: Claim, verdicts: Sequence[Verdict]) -> str:
    lines = [f"**{claim.statement}** ({claim.source}). {claim.why}".rstrip(), ""]
    lines += ["| setting | series | verdict | in | means along the curve |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {v.setting} | {v.series} | {v.verdict} | {v.holds} of {v.of} {v.unit} | {v.numbers} |" for v in verdicts
    ]
    return "\n".join(lines) + "\n"


def _changes(verdicts: Sequence[Verdict]) -> list[str]:
    """Where a setting's verdict differs from that of the first setting of the same series."""
    base: dict[str, Verdict] = {}
    lines = []
    for each in verdicts:
        first = base.setdefault(each.series, each)
        if each.verdict != first.verdict:
            lines.append(
                f"- {each.statement}, *{each.series}*: {first.verdict} with {first.setting} ({first.holds} of "
                f"{first.of}), {each.verdict} with {each.setting} ({each.holds} of {each.of})."
            )
    return lines
