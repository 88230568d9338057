"""Consistency checks of the printed numbers: items, pairings, repeated rows, published scores, counts.

No finding accuses. Each one names its assumption, since another assumption may explain the number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from reproduction.report.audit.names import RESULT_TABLES, read_csv
from reproduction.report.audit.pairings import ALPHA, SIGN, WILCOXON, Extremes, counts, extremes
from reproduction.report.audit.quantities import Quantity
from reproduction.report.ordering import PARAMS
from reproduction.report.significance import smallest_p

COUNTS, GRIM, MARKS, RUNS = "counts recomputed", "GRIM", "† against any pairing", "† against the number of runs"
REPEATED, SHAPE, TASKS, PUBLISHED = "rows printed twice", "shape of pass@k", "one task against several", "untuned base"
"""Names of the checks."""

POSSIBLE, EXCLUDED, FORCELESS = "possible", "excluded", "no force"
IMPOSSIBLE, DUE, ALLOWED = "† impossible", "† due", "† possible"
MISSING, OPEN, OUT_OF_REACH = "† missing", "no †, open", "no †, out of reach"
BEHIND, TIE = "behind", "equal as printed"
"""Kinds of findings of the GRIM test and of the significance marks."""

ITEMS = {"gsm8k": "gsm8k_items", "mmlu": "mmlu_items", "commonsenseqa": "commonsenseqa_items"}
"""Columns with one answer per item → the fact with the number of items."""

REFUSAL_ITEMS = range(100, 401)
HEXPHI_SIZES = (300, 330)
"""Sizes of HEx-PHI: 11 categories of 30 prompts, and without the category that its authors withdrew."""

LAWS = ("rising", "concave", "pass@5 within pass@1's bound", "pass@10 within pass@5's bound")
FEWEST_SHARED = 4
"""Minimum number of shared scores; rows that agree in fewer may do so by chance."""

Rows = dict[tuple[str, str], dict[str, Quantity]]


@dataclass(frozen=True)
class Finding:
    """A row of forensics.csv: the result of one check at one place.

    ``low`` and ``high`` bound ``quantity`` under ``assumption`` (equal for a single number). ``finding`` is the
    sentence; the part before its colon is its kind.
    """

    check: str
    place: str
    printed: str
    assumption: str
    quantity: str
    low: str
    high: str
    finding: str

    @property
    def kind(self) -> str:
        return self.finding.split(":")[0]


FINDING_COLUMNS = tuple(Finding.__annotations__)


def examine(paper: Mapping[str, Any], results: Path) -> list[Finding]:
    """Return all findings on the paper's tables and facts (`names.paper_names`) and on ``results``/counts."""
    return [
        *recounted(results),
        *grim(paper),
        *marks(paper),
        *over_runs(),
        *repeated_rows(paper),
        *pass_at_k(paper),
        *single_against_multi(paper),
        *published(paper),
    ]


def scores(paper: Mapping[str, Any], number: int) -> Rows:
    """Return a table's rows without the share of parameters: (base, method) → column → number."""
    found: Rows = {}
    for (base, method, column), cell in paper[f"t{number}"].cells.items():
        if column != PARAMS:
            found.setdefault((base, method), {})[column] = cell
    return found


def recounted(results: Path) -> Iterator[Finding]:
    """Compare the paper's counts and percentages with ours in results/counts; no findings without that file."""
    for name in ("table6.csv", "percentages.csv"):
        path = results / "counts" / name
        for row in read_csv(path) if path.is_file() else []:
            of_table6 = row["table"] == "table6"
            ours = row["trainable" if of_table6 else "params_pct_paper"]
            place = f"{row['table']} {row['base']} {row['method']}" + (f" r={row['rank']}" if of_table6 else "")
            convention = "" if of_table6 else "; frozen copies of A_i counted as parameters"
            assumption = f"counted on the adapted model{convention}"
            quantity = "trainable parameters" if of_table6 else "# Params (%)"
            if row["printed"]:
                yield Finding(COUNTS, place, row["printed"], assumption, quantity, ours, ours, row["agree"])


def possible(rate: Quantity, items: int) -> bool:
    """Whether a printed rate (percent) is a count over ``items``: some integer k has 100 k/n within its rounding."""
    return len(counts(rate, items)) > 0


def grim(paper: Mapping[str, Any]) -> Iterator[Finding]:
    """GRIM test: can a printed rate be a count over that many items? (Brown & Heathers 2017, "granularity-related
    inconsistency of means".) Known item numbers; HumanEval by samples per problem; HEx-PHI by number of prompts.

    For n > 1000 every rate printed to 0.1 is possible, so the test finds nothing.
    """
    facts = {name: int(fact.value) for (name,), fact in paper["fact"].cells.items() if name.endswith("_items")}
    problems = facts["humaneval_items"]
    for column, fact in ITEMS.items():
        yield _granularity(_rates(paper, column), facts[fact], "one run, its items known")
    for n in range(1, 11):
        yield _granularity(_rates(paper, "pass@1"), problems * n, f"{n} sample{'s' * (n > 1)} a problem")
    for k in (5, 10):
        yield _granularity(_rates(paper, f"pass@{k}"), problems, f"{k} samples a problem: then pass@{k} is a count")
    refusals = _rates(paper, "hexphi")
    for n in HEXPHI_SIZES:
        yield _granularity(refusals, n, f"one run over {n} prompts")
    yield any_number(refusals)


def _rates(paper: Mapping[str, Any], column: str) -> list[Quantity]:
    """Return the distinct numbers that the tables of results print in a column, ascending."""
    rows = (row for number in RESULT_TABLES for row in scores(paper, number).values())
    found = {row[column].value: row[column] for row in rows if column in row}
    return [found[value] for value in sorted(found)]


def _granularity(rates: list[Quantity], items: int, assumption: str) -> Finding:
    impossible = [rate for rate in rates if not possible(rate, items)]
    if impossible:
        shown = ", ".join(map(str, impossible[:5])) + (" …" if len(impossible) > 5 else "")
        finding = f"{EXCLUDED}: {len(impossible)} {'is' if len(impossible) == 1 else 'are'} not ({shown})"
    elif items >= 1000:
        finding = f"{FORCELESS}: a step of 1/n is finer than the printed digit, so that every rate is"
    else:
        finding = f"{POSSIBLE}: every rate is"
    place, low, high = f"{rates[0].cell.column}, all tables", len(rates) - len(impossible), len(rates)
    quantity = f"rates that are k/{items:,}"
    return Finding(GRIM, place, f"{high} rates", assumption, quantity, str(low), str(high), finding)


def any_number(rates: list[Quantity]) -> Finding:
    """Test HEx-PHI with every plausible number of prompts: the best n, and how many rates it explains."""
    by_items = {n: sum(possible(rate, n) for rate in rates) for n in REFUSAL_ITEMS}
    best, most = max(by_items.values()), len(rates)
    reached = [n for n, found in by_items.items() if found == best]
    more = f" and {len(reached) - 6} more" if len(reached) > 6 else ""
    kind = POSSIBLE if best == most else EXCLUDED
    finding = f"{kind}: the most at n = {', '.join(map(str, reached[:6]))}{more}"
    assumption = f"one run over one number of prompts, {REFUSAL_ITEMS[0]} to {REFUSAL_ITEMS[-1]}"
    quantity = "rates that are k/n, at the best n"
    return Finding(GRIM, "hexphi, all tables", f"{most} rates", assumption, quantity, str(best), str(most), finding)


def marks(paper: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the † of Tables 1 and 2: every method against LoRA in the columns of right-or-wrong items, by both tests,
    one- and two-sided, with all p values that a paired test of one run each can give.

    pass@k is left out: its items are averages over samples, so their differences have no such bounds.
    """
    for number in (1, 2):
        cells = paper[f"t{number}"].cells
        for (base, method, column), cell in cells.items():
            if method == "lora" or column not in (*ITEMS, "hexphi"):
                continue
            lora = cells[base, "lora", column]
            if column in ITEMS:
                sizes = [int(paper["fact"][ITEMS[column],].value)]
            else:  # every plausible number of items for which both rates are counts
                sizes = [n for n in REFUSAL_ITEMS if possible(cell, n) and possible(lora, n)]
            for test in (SIGN, WILCOXON):
                for sides in (2, 1) if cell.value > lora.value else (2,):  # a one-sided test is about improvement
                    yield _tested(cell, lora, sizes, test=test, sides=sides)


def _tested(cell: Quantity, lora: Quantity, sizes: list[int], *, test: str, sides: int) -> Finding:
    each = [extremes(cell, lora, n, test=test, sides=sides) for n in sizes]
    whole = Extremes(
        smallest=min(found.smallest for found in each),
        largest=max(found.largest for found in each),
        most_differing=max((found.most_differing for found in each if found.most_differing is not None), default=None),
        ahead=min((found.ahead for found in each), key=abs),
    )
    span = f"n prompts, any of the {len(sizes)} n from {REFUSAL_ITEMS[0]} to {REFUSAL_ITEMS[-1]} that give both rates"
    items = f"{sizes[0]:,}" if len(sizes) == 1 else "n"
    over = f"{items} items" if len(sizes) == 1 else span
    assumption = f"one run each over {over}; {test}, {'one' if sides == 1 else 'two'}-sided"
    printed, ends = (
        f"{cell}{'†' if cell.dagger else ''} against {lora}",
        (f"{whole.smallest:.3g}", f"{whole.largest:.3g}"),
    )
    return Finding(MARKS, str(cell.cell), printed, assumption, "p", *ends, mark(cell, whole, items))


def mark(cell: Quantity, found: Extremes, items: str) -> str:
    """Assess a cell's † or its absence by the extremes."""
    every, none = f"every pairing gives p < {ALPHA:g}", f"no pairing gives p < {ALPHA:g}"
    at_most = f"p < {ALPHA:g} needs at most {found.most_differing} of {items} items to differ"
    due, impossible = found.largest < ALPHA, found.smallest >= ALPHA
    if cell.dagger:
        return f"{IMPOSSIBLE}: {none}" if impossible else f"{DUE}: {every}" if due else f"{ALLOWED}: {at_most}"
    if found.ahead < 0:
        return f"{BEHIND}: {every if due else f'some pairing gives p ≥ {ALPHA:g}'}"
    if found.ahead == 0:
        return f"{TIE}: the counts may be equal"
    return f"{MISSING}: {every}" if due else f"{OUT_OF_REACH}: {none}" if impossible else f"{OPEN}: {at_most}"


def over_runs() -> Iterator[Finding]:
    """Return the smallest two-sided p of a signed-rank test with n runs (seeds) as units instead of items."""
    for n in range(2, 9):
        p = smallest_p(n)
        assumption = f"Wilcoxon signed-rank over {n} paired runs, two-sided"
        finding = f"{ALLOWED if p < ALPHA else IMPOSSIBLE}: all {n} of one sign"
        yield Finding(RUNS, "Tables 1 and 2", "†", assumption, "smallest p", f"{p:.3g}", f"{p:.3g}", finding)


def repeated_rows(paper: Mapping[str, Any]) -> Iterator[Finding]:
    """Find pairs of rows, in one table or two, that print the same scores."""
    every = [((number, *key), row) for number in RESULT_TABLES for key, row in scores(paper, number).items()]
    for (a, first), (b, second) in combinations(every, 2):
        shared = [column for column in first if column in second]
        if len(shared) < FEWEST_SHARED or any(first[column].text != second[column].text for column in shared):
            continue
        kind = "one run in two tables" if a[1:] == b[1:] else "two runs with one row"
        place = "; ".join(f"table{number} {base} {method}" for number, base, method in (a, b))
        printed, n = ", ".join(first[column].text for column in shared), str(len(shared))
        yield Finding(REPEATED, place, printed, "", "equal scores", n, n, f"{kind}: all scores are equal")


def pass_at_k(paper: Mapping[str, Any]) -> Iterator[Finding]:
    """Check every row against the laws of pass@1, pass@5 and pass@10 of one set of samples.

    They rise with k; they are concave in k; and since (1 - c)^k is convex, 1 - pass@5 ≥ (1 - pass@1)^5 and 1 - pass@10
    ≥ (1 - pass@5)^2. (This is exact for the expectations; the unbiased estimate of Chen et al. 2021 deviates only by
    sampling.)
    """
    for number in RESULT_TABLES:
        for (base, method), row in scores(paper, number).items():
            rates = [row[f"pass@{k}"] for k in (1, 5, 10)]
            broken = broken_laws(*rates)
            place, printed = f"table{number} {base} {method}", " / ".join(rate.text for rate in rates)
            low, high = str(len(LAWS) - len(broken)), str(len(LAWS))
            finding = f"broken: {', '.join(broken)}" if broken else "kept: all of them"
            yield Finding(SHAPE, place, printed, "one set of samples behind all three", "laws kept", low, high, finding)


def broken_laws(one: Quantity, five: Quantity, ten: Quantity) -> list[str]:
    """Return the laws of `pass_at_k` that no values within the rounding satisfy."""
    fails = [(1 - rate.high / 100, 1 - rate.low / 100) for rate in (one, five, ten)]
    satisfied = (
        one.low <= five.high and five.low <= ten.high,
        (five.high - one.low) / 4 >= (ten.low - five.high) / 5,
        fails[1][1] >= fails[0][0] ** 5,
        fails[2][1] >= fails[1][0] ** 2,
    )
    return [law for law, holds in zip(LAWS, satisfied, strict=True) if not holds]


def single_against_multi(paper: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare the scores that Tables 1 and 2 share: tuned on one task, or on a mixture with half of the code data."""
    mixed = scores(paper, 2)
    for (base, method), row in scores(paper, 1).items():
        for column, alone in row.items():
            if (other := mixed[base, method].get(column)) is None:
                continue
            gain = other - alone
            kind = "higher in the mixture" if gain.value > 0 else "lower in the mixture" if gain.value < 0 else "equal"
            value, low, high = (f"{float(end):+.1f}" for end in (gain.value, gain.low, gain.high))
            place, printed = f"{base} {column}: {method}", f"{alone} alone, {other} in the mixture"
            yield Finding(TASKS, place, printed, "", "difference, points", low, high, f"{kind}: {value}")


def published(paper: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare the rows of every table with a published score of the untuned base, if one is certain."""
    for (name,), fact in paper["fact"].cells.items():
        if not name.endswith("_published"):
            continue
        base, _, column = name.removesuffix("_published").rpartition("_")
        assumption = f"published for the untuned base: {fact} (its own shots and prompts; facts.csv has the source)"
        for number in RESULT_TABLES:
            cells = [row[column] for (own, _), row in scores(paper, number).items() if own == base and column in row]
            if not cells:
                continue
            below = sum(cell.high < fact.low for cell in cells)
            gaps = [float(cell.value - fact.value) for cell in cells]
            kind = "all below" if below == len(cells) else "some below" if below else "none below"
            mean = float(sum(cell.value - fact.value for cell in cells) / len(cells))
            place, printed = f"table{number} {base} {column}", ", ".join(map(str, cells))
            ends, finding = (
                (f"{min(gaps):+.1f}", f"{max(gaps):+.1f}"),
                f"{kind}: {below} of {len(cells)} rows, mean {mean:+.1f}",
            )
            yield Finding(PUBLISHED, place, printed, assumption, "tuned minus published, points", *ends, finding)
