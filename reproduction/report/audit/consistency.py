"""Do the tables agree with each other, with what pass@k can be, and with published scores of the untuned bases?"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from reproduction.report.audit.findings import Finding
from reproduction.report.audit.paper import RESULT_TABLES
from reproduction.report.audit.quantities import Quantity, exact
from reproduction.report.ordering import PARAMS

REPEATED, SHAPE, TASKS, PUBLISHED = "rows printed twice", "shape of pass@k", "one task against several", "untuned base"
FEWEST_SHARED = 4
"""Rows that agree in fewer scores than this may do so by chance."""

PUBLISHED_FACT = "_published"
Row = dict[str, Quantity]


def scores(paper: Mapping[str, Any], number: int) -> dict[tuple[str, str], Row]:
    """A table's rows without the share of parameters: (base, method) → column → number."""
    found: dict[tuple[str, str], Row] = {}
    for (base, method, column), cell in paper[f"t{number}"].cells.items():
        if column != PARAMS:
            found.setdefault((base, method), {})[column] = cell
    return found


def repeated_rows(paper: Mapping[str, Any]) -> list[Finding]:
    """Pairs of rows of any two tables, or of one, that print the same scores."""
    every = [(number, key, row) for number in RESULT_TABLES for key, row in scores(paper, number).items()]
    found = []
    for (a, (base, method), first), (b, (other_base, other), second) in combinations(every, 2):
        shared = [column for column in first if column in second]
        equal = [column for column in shared if first[column].text == second[column].text]
        if len(shared) >= FEWEST_SHARED and len(equal) == len(shared):
            one = (base, method) == (other_base, other)
            found.append(
                Finding(
                    check=REPEATED,
                    place=f"table{a} {base} {method}; table{b} {other_base} {other}",
                    printed=", ".join(first[column].text for column in shared),
                    assumption="",
                    quantity="equal scores",
                    low=str(len(equal)),
                    high=str(len(shared)),
                    finding="one run in two tables: all scores are equal"
                    if one
                    else "two runs with one row: all scores are equal",
                )
            )
    return found


def pass_at_k(paper: Mapping[str, Any]) -> list[Finding]:
    """Every row against what pass@1, pass@5 and pass@10 of one set of samples must satisfy.

    They rise with k; they are concave in k; and since (1 - c)^k is convex, 1 - pass@5 ≥ (1 - pass@1)^5 and
    1 - pass@10 ≥ (1 - pass@5)^2. (Exactly so for the expectations; the unbiased estimate of Chen et al. 2021 differs
    from them by sampling alone.)
    """
    found = []
    for number in RESULT_TABLES:
        for (base, method), row in scores(paper, number).items():
            broken = broken_laws(*(row[f"pass@{k}"] for k in (1, 5, 10)))
            found.append(
                Finding(
                    check=SHAPE,
                    place=f"table{number} {base} {method}",
                    printed=" / ".join(row[f"pass@{k}"].text for k in (1, 5, 10)),
                    assumption="one set of samples behind all three",
                    quantity="laws kept",
                    low=str(len(LAWS) - len(broken)),
                    high=str(len(LAWS)),
                    finding=f"broken: {', '.join(broken)}" if broken else "kept: all of them",
                )
            )
    return found


LAWS = ("rising", "concave", "pass@5 within pass@1's bound", "pass@10 within pass@5's bound")


def broken_laws(one: Quantity, five: Quantity, ten: Quantity) -> list[str]:
    """The laws of `pass_at_k` that no values within the rounding keep."""
    fails = [[1 - rate.high / 100, 1 - rate.low / 100] for rate in (one, five, ten)]
    kept = (
        one.low <= five.high and five.low <= ten.high,
        (five.high - one.low) / 4 >= (ten.low - five.high) / 5,
        fails[1][1] >= fails[0][0] ** 5,
        fails[2][1] >= fails[1][0] ** 2,
    )
    return [law for law, fine in zip(LAWS, kept, strict=True) if not fine]


def single_against_multi(paper: Mapping[str, Any]) -> list[Finding]:
    """Scores that Tables 1 and 2 share: tuned on that task alone, or on a mixture with half of the code data."""
    found = []
    alone, mixed = scores(paper, 1), scores(paper, 2)
    for (base, method), row in alone.items():
        for column in (column for column in row if column in mixed[base, method]):
            gain = mixed[base, method][column] - row[column]
            kind = "higher in the mixture" if gain.value > 0 else "lower in the mixture" if gain.value < 0 else "equal"
            found.append(
                Finding(
                    check=TASKS,
                    place=f"{base} {column}: {method}",
                    printed=f"{row[column]} alone, {mixed[base, method][column]} in the mixture",
                    assumption="",
                    quantity="difference, points",
                    low=f"{float(gain.low):+.1f}",
                    high=f"{float(gain.high):+.1f}",
                    finding=f"{kind}: {float(gain.value):+.1f}",
                )
            )
    return found


def published(paper: Mapping[str, Any]) -> list[Finding]:
    """The rows of every table against a published score of the base before any tuning, where one is certain."""
    found = []
    for (name,), fact in paper["fact"].cells.items():
        if not name.endswith(PUBLISHED_FACT):
            continue
        base, _, column = name.removesuffix(PUBLISHED_FACT).rpartition("_")
        for number in RESULT_TABLES:
            cells = [row[column] for (own, _), row in scores(paper, number).items() if own == base and column in row]
            if cells:
                found.append(_against(fact, cells, f"table{number} {base} {column}"))
    return found


def _against(fact: Quantity, cells: list[Quantity], place: str) -> Finding:
    below = sum(cell.high < fact.low for cell in cells)
    gaps = [cell.value - fact.value for cell in cells]
    kind = "all below" if below == len(cells) else "some below" if below else "none below"
    return Finding(
        check=PUBLISHED,
        place=place,
        printed=", ".join(map(str, cells)),
        assumption=f"published for the untuned base: {fact} (its own shots and prompts; facts.csv has the source)",
        quantity="tuned minus published, points",
        low=f"{float(min(gaps)):+.1f}",
        high=f"{float(max(gaps)):+.1f}",
        finding=f"{kind}: {below} of {len(cells)} rows, mean {float(sum(gaps, start=exact(0).value) / len(gaps)):+.1f}",
    )
