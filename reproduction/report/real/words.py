"""How the sentences about a real model put things side by side."""

from collections.abc import Iterable, Sequence

from reproduction.report.standings import VERDICTS, Pair


def joined(parts: Sequence[str]) -> str:
    """ "A, B and C"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def short(names: Iterable[str]) -> list[str]:
    """ "HumanEval pass@1", "pass@5": headings without the first word of the one before."""
    names = list(names)
    before = ["", *(name.partition(" ")[0] for name in names)]
    return [name.removeprefix(f"{first} ") for name, first in zip(names, before, strict=False)]


def stand(told: Sequence[tuple[Pair, str]], *, of: str = "") -> str:
    """ "ahead of A by …; level with B (…)": pairs by verdict, each with how it is called."""
    groups = {
        verdict: [f"{name} {pair.amount}" for pair, name in told if pair.verdict == verdict] for verdict in VERDICTS
    }
    return "; ".join(" ".join(filter(None, [verdict, of, joined(own)])) for verdict, own in groups.items() if own)
