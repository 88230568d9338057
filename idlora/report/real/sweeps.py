"""What is said of counts and clusters: at which count ID-LoRA reaches LoRA's loss, and what another k does."""

import re

from idlora.report.real.facts import LORA, SUBJECT, Real, millions
from idlora.report.real.words import joined, stand
from idlora.report.standings import BEHIND, LOSS, VERDICTS, Row

RANKS = (SUBJECT, "idlora_half")
"""The methods of k = 4 that the other numbers of clusters are set against: a rank each."""


def counts_and_clusters(real: Real) -> tuple[str, str]:
    return "Counts and clusters", " ".join([*_counts(real), *_clusters(real)])


def _counts(real: Real) -> list[str]:
    """Each ID-LoRA of Table 7 against every LoRA there, by what they train; nothing where they were not compared."""
    rows = real.budgets.rows
    trained = {method: int(row["parameters_trainable"]) for method, row in rows.items()}
    ordered = sorted(trained, key=trained.get)
    rivals = [method for method in ordered if method.partition("_")[0] == LORA]
    against = {
        method: own
        for method in ordered
        if method.partition("_")[0] == SUBJECT
        and (own := [pair for rival in rivals if (pair := real.budgets.pairs.get((method, rival, LOSS)))])
    }
    if not all(len(own) == len(rivals) for own in against.values()) or not against:
        return []
    note = real.note(pair for own in against.values() for pair in own)
    said = []
    for method, own in against.items():
        by_verdict = {verdict: [pair.second for pair in own if pair.verdict == verdict] for verdict in VERDICTS}
        stands = [
            f"{verdict} LoRA of {joined([millions(rows[each]) for each in others])}"
            for verdict, others in by_verdict.items()
            if others
        ]
        said.append(f"ID-LoRA of {millions(rows[method])} ({rows[method][LOSS]}) is {', '.join(stands)}")
    parts = [f"By trained numbers, with the held-out loss{note}: {'; '.join(said)}."]
    best = min(against, key=lambda method: float(rows[method][LOSS]))
    as_good = [pair.second for pair in against[best] if pair.reversed.verdict != BEHIND]
    fewest = f"are {millions(rows[as_good[0]])} ({rows[as_good[0]][LOSS]})" if as_good else "are more than any here"
    parts.append(
        f"The fewest numbers with which LoRA is as good as ID-LoRA at its best, {rows[best][LOSS]} with "
        f"{millions(rows[best])}, {fewest}."
    )
    fair = {m: fair for m, own in against.items() if (fair := [p for p in own if trained[p.second] <= trained[m]])}
    reached = [millions(rows[method]) for method, own in fair.items() if all(p.verdict != BEHIND for p in own)]
    who = "No ID-LoRA" if not reached else f"{'Every' if len(reached) == len(fair) else 'Only'} ID-LoRA"
    which = f" of {joined(reached)}" if 0 < len(reached) < len(fair) else ""
    if fair:
        parts.append(f"{who}{which} is level with or ahead of every LoRA of no more numbers.")
    return parts


def _clusters(real: Real) -> list[str]:
    """At each rank of Table 8, k = 4 against the others; nothing where there are none."""
    rows, told, every = real.clusters.rows, [], []
    for method in RANKS:
        found = [other for other in rows if re.fullmatch(rf"{method}_k\d+", other)]
        pairs = [pair for other in found if (pair := real.clusters.pairs.get((method, other, LOSS)))]
        if pairs:
            named = [(pair, _clustered(rows[pair.second])) for pair in pairs]
            told.append(f"{_clustered(rows[method])} is {stand(named)}")
            every += pairs
    return [f"By clusters{real.note(every)}, {'. '.join(told)}."] if told else []


def _clustered(row: Row) -> str:
    """ "k = 4 at r=32 (1.84M)"."""
    return f"{row['method_label'].replace(', ', ' at ')} ({millions(row)})"
