"""What is said of counts and clusters: at which count ID-LoRA reaches LoRA's loss, and what another k does."""

import re
from collections import Counter

from reproduction.report.real.facts import LORA, SUBJECT, Real, millions
from reproduction.report.real.words import joined, stand
from reproduction.report.standings import AHEAD, BEHIND, LOSS, VERDICTS, Row

RANKS = (SUBJECT, "idlora_half")
"""The methods of k = 4 that the other numbers of clusters are set against: a rank each."""


def counts_and_clusters(real: Real) -> tuple[str, str]:
    told = [*_counts(real), *_clusters(real)]
    if not told:
        return "Counts and clusters", ""
    blocks = real.budgets, real.clusters
    note = real.note(pair for block in blocks for pair in block.pairs.values() if pair.column == LOSS)
    rest = "Every pair: `budgets.md` and `clusters.md` in `results/reference/small/tables/`."
    return "Counts and clusters", " ".join([f"All in mean held-out loss{note}.", *told, rest])


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
    pairs = [pair for own in against.values() for pair in own]
    verdicts = Counter(pair.verdict for pair in pairs)
    stands = joined([f"{verdict.split()[0]} in {verdicts[verdict]}" for verdict in VERDICTS if verdicts[verdict]])
    parts = [f"By number of trained parameters: of {len(pairs)} pairs of an ID-LoRA and a LoRA, ID-LoRA is {stands}."]
    best = min(against, key=lambda method: float(rows[method][LOSS]))
    as_good = [pair.second for pair in against[best] if pair.verdict != AHEAD]
    of_best = f"level with or ahead of the best ID-LoRA ({rows[best][LOSS]}, {millions(rows[best])})"
    parts.append(
        f"The smallest LoRA that is {of_best} trains {millions(rows[as_good[0]])} ({rows[as_good[0]][LOSS]})."
        if as_good
        else f"No LoRA is {of_best}."
    )
    fair = {m: fair for m, own in against.items() if (fair := [p for p in own if trained[p.second] <= trained[m]])}
    reached = [millions(rows[method]) for method, own in fair.items() if all(p.verdict != BEHIND for p in own)]
    who = "No ID-LoRA" if not reached else f"{'Every' if len(reached) == len(fair) else 'Only'} ID-LoRA"
    which = f" of {joined(reached)}" if 0 < len(reached) < len(fair) else ""
    if fair:
        parts.append(f"{who}{which} is level with or ahead of every LoRA that trains no more parameters.")
    return parts


def _clusters(real: Real) -> list[str]:
    """At each rank of Table 8, k = 4 against the others; nothing where there are none."""
    rows, told = real.clusters.rows, []
    for method in RANKS:
        found = [other for other in rows if re.fullmatch(rf"{method}_k\d+", other)]
        pairs = [pair for other in found if (pair := real.clusters.pairs.get((method, other, LOSS)))]
        if pairs:
            rank = rows[method]["method_label"].partition(", ")[2]
            named = [(pair, _clustered(rows[pair.second])) for pair in pairs]
            told.append(f"At {rank}, {_clustered(rows[method])} is {stand(named)}.")
    return told


def _clustered(row: Row) -> str:
    """ "k = 4 (1.84M)"."""
    return f"{row['method_label'].partition(', ')[0]} ({millions(row)})"
