"""The known names nearest to an unknown one, for messages."""

from argparse import ArgumentTypeError
from collections.abc import Iterable
from difflib import SequenceMatcher

from reproduction.paths import CONFIGS

CLOSE, ALMOST_EQUAL = 0.7, 0.85
"""Similarities above which two names may be, and probably are, spellings of one."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the names that were probably meant, best first; [] if none is near.

    Names may be dotted. First come names with the same last part (``r`` for ``method.arguments.r``), then those whose
    initials are given (``lr`` for ``train.learning_rate``) or whose spelling differs little, then those with a word or
    an initial in common (``alpha`` for ``lora_alpha``, ``rank`` for ``r``), then the closest spelling.
    """
    scores = {each: _likeness(name, each) for each in known}
    best = max(scores.values(), default=0.0)
    alike = [each for each, score in scores.items() if score >= CLOSE and int(score) == int(best)]
    if best < 1:
        alike = [each for each in alike if scores[each] > best - 0.05]
    parent = name.rpartition(".")[0]
    alike = [each for each in alike if parent and each.rpartition(".")[0] == parent] or alike
    return sorted(alike, key=lambda each: -scores[each])[:most]


def _likeness(name: str, known: str) -> float:
    """Return the similarity of two names in [0, 1), plus 3, 2 or 1 for what they share."""
    asked, last = name.lower().split(".")[-1], known.lower().split(".")[-1]
    in_one_place = name.rpartition(".")[0] == known.rpartition(".")[0]
    spelling = 0.99 * SequenceMatcher(None, asked, last).ratio()
    close = spelling if in_one_place else 0.99 * SequenceMatcher(None, name.lower(), known.lower()).ratio()
    if asked == last:
        return 3 + close
    if _initials(last) == asked or close >= ALMOST_EQUAL:
        return 2 + close
    if set(asked.split("_")) < set(last.split("_")) or _initials(asked) == last:
        return 1 + close
    return max(close, spelling)


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.split("_"))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean a, b or c?", or the list of all names if none is near."""
    known = list(known)
    if near := nearest(name, known):
        return f"did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"
    return f"choose {', '.join(known)}" if known else "there is none"


def scale_name(name: str) -> str:
    """Return the name if configs/scale has it; a type of argparse's arguments."""
    known = sorted(path.stem for path in (CONFIGS / "scale").glob("*.yaml"))
    if name not in known:
        raise ArgumentTypeError(f"there is no scale {name}; {did_you_mean(name, known)}")
    return name
