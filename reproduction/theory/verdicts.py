"""Claim → verdict, decided by counting over the points of the curves.

A statement is counted in every draw of every point it concerns. One that concerns expectations (22) is counted in
points, by whether the interval of the difference leaves out zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reproduction.theory.estimates import ZERO, Point, number

HOLDS, PARTLY, FAILS, UNDECIDED = "holds", "holds in part", "does not hold", "undecided"


@dataclass(frozen=True)
class Claim:
    """A statement and what decides it; `experiments/theory/claims.yaml` says what the fields mean."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

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


@dataclass(frozen=True)
class Verdict:
    """What one claim comes to in one setting and series: ``holds`` of ``of`` ``unit``, and the numbers beside it."""

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
    """The verdict on every claim in every setting and series that has its quantity.

    `holds`: in all; `does not hold`: in none; `holds in part`: between. Of expectations `undecided` where no interval
    leaves out zero. A claim is universal, so that one clear counterexample refutes it: read `holds in part` so.
    Raises ValueError for a claim without a measurement.
    """
    found = []
    for claim in claims:
        concerned = [p for p in measured if p.study == claim.study and (not claim.series or p.series in claim.series)]
        deciding = [p for p in concerned if p.quantity == claim.quantity]
        if not deciding:
            raise ValueError(f"nothing measures {claim.quantity!r} of {claim.study!r}, which decides {claim.name!r}")
        for place in dict.fromkeys(map(_place, deciding)):
            here = [p for p in concerned if _place(p) == place]
            found.append(_verdict(claim, [p for p in deciding if _place(p) == place], here))
    return found


def verdict_word(holds: int, of: int) -> str:
    """The word for a universal statement that was true ``holds`` times out of ``of``."""
    return HOLDS if holds == of else FAILS if holds == 0 else PARTLY


def _place(point: Point) -> tuple[str, str]:
    return point.setting, point.series


def _verdict(claim: Claim, deciding: Sequence[Point], here: Sequence[Point]) -> Verdict:
    numbers = [_range(name, here) for name in claim.beside] + [_total(name, here) for name in claim.totals]
    if claim.signed:
        above = sum(p.low > ZERO for p in deciding)
        below = sum(p.high < -ZERO for p in deciding)
        holds, of, unit = above, len(deciding), "points"
        numbers = [f"the other way at {below}", f"undecided at {of - above - below}", *numbers]
        word = UNDECIDED if not above and not below else verdict_word(holds, of)
    else:
        holds, of = sum(round(p.mean * p.draws) for p in deciding), sum(p.draws for p in deciding)
        unit, word = "draws", verdict_word(holds, of)
    return Verdict(
        claim.study, claim.name, claim.source, claim.statement, *_place(deciding[0]),
        word, holds, of, f"{unit} along {deciding[0].x_name}", "; ".join(numbers),
    )  # fmt: skip


def _range(name: str, here: Sequence[Point]) -> str:
    means = [p.mean for p in here if p.quantity == name]
    low, high = number(min(means), 3), number(max(means), 3)
    return f"{name.replace('_', ' ')} {low}" + (f" … {high}" if high != low else "")


def _total(name: str, here: Sequence[Point]) -> str:
    return f"{name.replace('_', ' ')}: {round(sum(p.mean * p.draws for p in here if p.quantity == name))} in all"
