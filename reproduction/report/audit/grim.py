"""GRIM: can a printed rate be a count over that many items? (Brown & Heathers 2017, "granularity-related inconsistency
of means".) A rate p printed to 0.1 is possible for n items when some whole k has 100 k/n within p ± 0.05.

Where n > 1000 every rate is, and the test can find nothing: GSM8K, MMLU and CommonsenseQA are such. It has force for
HumanEval's 164 problems with few samples each, and for HEx-PHI, whose prompts number in the hundreds.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from reproduction.report.audit.findings import Finding
from reproduction.report.audit.pairings import counts
from reproduction.report.audit.paper import RESULT_TABLES
from reproduction.report.audit.quantities import Quantity

CHECK = "GRIM"
POSSIBLE, EXCLUDED, FORCELESS = "possible", "excluded", "no force"
KNOWN = {"gsm8k": "gsm8k_items", "mmlu": "mmlu_items", "commonsenseqa": "commonsenseqa_items"}
SAMPLES = range(1, 11)
REFUSAL_ITEMS = range(100, 401)
HEXPHI_SIZES = (300, 330)
"""HEx-PHI's 11 categories of 30 prompts, and what is left without the one that its authors withdrew."""


def possible(rate: Quantity, items: int) -> bool:
    """Whether the printed ``rate`` (percent) is a count over ``items``."""
    return len(counts(rate, items)) > 0


def rates(paper: Mapping[str, Any], column: str) -> list[Quantity]:
    """Every number that Tables 1, 2, 3, 7 and 8 print in a column, each once, ascending."""
    found = {
        cell.value: cell
        for number in RESULT_TABLES
        for key, cell in paper[f"t{number}"].cells.items()
        if key[2] == column
    }
    return [found[value] for value in sorted(found)]


def findings(paper: Mapping[str, Any]) -> list[Finding]:
    """Known item numbers; HumanEval by samples a problem; HEx-PHI by number of prompts."""
    problems = int(paper["fact"]["humaneval_items",].value)
    found = [
        _finding(rates(paper, column), int(paper["fact"][fact,].value), "one run, its items known")
        for column, fact in KNOWN.items()
    ]
    found += [_finding(rates(paper, "pass@1"), problems * n, f"{n} sample{'s' * (n > 1)} a problem") for n in SAMPLES]
    found += [
        _finding(rates(paper, f"pass@{k}"), problems, f"{k} samples a problem: then pass@{k} is a count")
        for k in (5, 10)
    ]
    refusals = rates(paper, "hexphi")
    found += [_finding(refusals, n, f"one run over {n} prompts") for n in HEXPHI_SIZES]
    return [*found, _any_number(refusals)]


def _finding(printed: list[Quantity], items: int, assumption: str) -> Finding:
    impossible = [rate for rate in printed if not possible(rate, items)]
    kind = EXCLUDED if impossible else FORCELESS if items >= 1000 else POSSIBLE
    return Finding(
        check=CHECK,
        place=f"{printed[0].cell.column}, all tables",
        printed=f"{len(printed)} rates",
        assumption=assumption,
        quantity=f"rates that are k/{items:,}",
        low=str(len(printed) - len(impossible)),
        high=str(len(printed)),
        finding=f"{kind}: {_told(kind, impossible)}",
    )


def _told(kind: str, impossible: list[Quantity]) -> str:
    if kind == FORCELESS:
        return "a step of 1/n is finer than the printed digit, so that every rate is"
    if kind == POSSIBLE:
        return "every rate is"
    shown = ", ".join(map(str, impossible[:5])) + (" …" if len(impossible) > 5 else "")
    return f"{len(impossible)} {'is' if len(impossible) == 1 else 'are'} not ({shown})"


def _any_number(printed: list[Quantity]) -> Finding:
    """HEx-PHI over every plausible number of prompts: the best n, and how many rates it gives."""
    by_items = {n: sum(possible(rate, n) for rate in printed) for n in REFUSAL_ITEMS}
    best = max(by_items.values())
    reached = [n for n, found in by_items.items() if found == best]
    kind = POSSIBLE if best == len(printed) else EXCLUDED
    return Finding(
        check=CHECK,
        place="hexphi, all tables",
        printed=f"{len(printed)} rates",
        assumption=f"one run over one number of prompts, {REFUSAL_ITEMS[0]} to {REFUSAL_ITEMS[-1]}",
        quantity="rates that are k/n, at the best n",
        low=str(best),
        high=str(len(printed)),
        finding=f"{kind}: the most at {_listed(reached)}",
    )


def _listed(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    return f"n = {', '.join(map(str, numbers[:6]))}" + (f" and {len(numbers) - 6} more" if len(numbers) > 6 else "")
