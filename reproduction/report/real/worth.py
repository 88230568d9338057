"""How loss and scores go together on a real model, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set

from reproduction.report.grid import UNTUNED
from reproduction.report.real.words import joined, short
from reproduction.report.standings import Row
from reproduction.report.worth import NAMES as OF_A_RUN
from reproduction.report.worth import Association, associated, told


def go_together(rows: Sequence[Row], alike: Set[str], headings: Mapping[str, str], *, notes: Mapping[str, str]) -> str:
    """By the rows of worth.csv: over the trained runs of the experiments ``alike``, which differ by method alone, and
    over all trained runs where there are more. ``headings`` and ``notes`` by column id.
    """
    trained = [row for row in rows if row["method"] != UNTUNED]
    first = [row for row in trained if row["experiment"] in alike]
    parts = []
    if first:
        parts.append(f"Where runs differ by method alone {_over(first, headings, notes)}.")
    if len(trained) > len(first):
        parts.append(f"Over all runs, of any rate and length {_over(trained, headings, {} if first else notes)}.")
    if parts:
        parts.append("In parentheses: the rank correlation of loss and score.")
    return " ".join(parts)


def _over(rows: Sequence[Row], headings: Mapping[str, str], notes: Mapping[str, str]) -> str:
    """ "(34 runs), a lower loss goes with a higher score on …": each score by the way it goes."""
    groups: dict[str, list[tuple[str, str]]] = {"higher": [], "lower": [], "": []}
    counts: Counter[int] = Counter()
    benchmarks: dict[int, dict[str, None]] = {}
    for column in [name for name in rows[0] if name not in OF_A_RUN and "_ci_" not in name]:
        own = [row for row in rows if row[column]]
        losses, scores = (tuple(float(row[name]) for row in own) for name in ("loss", column))
        found = associated(losses, scores, tuple(row["method"] for row in own))
        note = f", {notes[column]}" if column in notes else ""
        groups[_way(found)].append((headings[column], f"({told(found.rho, found.rho_interval)}{note})"))
        counts[len(own)] += 1
        benchmarks.setdefault(len(own), {})[headings[column].split()[0]] = None
    on = {
        way: joined([f"{name} {rho}" for name, (_, rho) in zip(short(name for name, _ in own), own, strict=True)])
        for way, own in groups.items()
    }
    goes = " and with ".join(f"a {way} score on {on[way]}" for way in ("higher", "lower") if on[way])
    parts = [f"a lower loss goes with {goes}"] if goes else []
    if on[""]:
        parts.append(f"nothing can be told on {on['']}")
    (most, _), *others = counts.most_common()
    runs = [f"{most} runs", *(f"{n} on {joined(list(benchmarks[n]))}" for n, _ in others)]
    return f"({', '.join(runs)}), {'; '.join(parts)}"


def _way(found: Association) -> str:
    """The score that goes with a lower loss: "higher", "lower", or nothing where the interval holds zero."""
    low, high = found.rho_interval or (0, 0)
    return "higher" if high < 0 else "lower" if low > 0 else ""
