"""What is said of the controls: other frozen rows, and Rank Boosting left out."""

from collections.abc import Iterable

from reproduction.report.real.facts import SUBJECT, Real, called, standing
from reproduction.report.real.words import stand
from reproduction.report.standings import LOSS, Pair

UNBOOSTED, RANDOM = "idlora_no_rb", "idlora_random"
FROZEN = (
    RANDOM, "idlora_serial", "idlora_largest_norm", "idlora_smallest_norm", "idlora_pivoted_qr",
    "idlora_gaussian", "idlora_orthonormal", "idlora_equal_norm",
)  # fmt: skip
"""The controls that freeze something else: other rows, and no rows."""


def frozen(real: Real) -> tuple[str, str]:
    def against(methods: Iterable[str]) -> list[tuple[Pair, str]]:
        pairs = (real.controls.pairs.get((SUBJECT, method, LOSS)) for method in methods)
        return [(pair, called(real.controls, pair.second)) for pair in pairs if pair]

    def by_source(method: str, title: str) -> str:
        sources = real.sources(real.controls, method)
        return f" By source{title}: {standing(real, sources)}." if sources else ""

    parts = []
    if rows := against(FROZEN):
        note = real.note(pair for pair, _ in rows)
        random = by_source(RANDOM, ", against rows at random")
        parts.append(f"As frozen bases{note}, the rows that PMRC picks are {stand(rows)}.{random}")
    if boosting := against((UNBOOSTED, "idlora_no_rb_same_rank")):
        note = real.note(pair for pair, _ in boosting)
        same = ", at the same count" if len(boosting) > 1 else ""
        parts.append(f"With Rank Boosting{note} ID-LoRA is {stand(boosting)}.{by_source(UNBOOSTED, same)}")
    return "Which rows, and whether rows", " ".join(parts)
