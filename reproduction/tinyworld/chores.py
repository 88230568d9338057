"""Ordinary instructions in Alpaca's schema: small chores whose answers follow from the facts of the world.

They tell of no fact that a test's quiz asks for: those stand in the pre-training corpus alone.
"""

import random

from reproduction.tinyworld.lexicon import OPPOSITES, PEOPLE, PLACES, WARES, Item, home_of, taught, trade_of, wares_at

_KNOWN_HOMES, _KNOWN_TRADES = (sorted(taught(kind, PEOPLE)) for kind in ("homes", "trades"))
_KNOWN_MARKETS = sorted(taught("markets", PLACES))
_KNOWN_OPPOSITES = sorted(taught("opposites", OPPOSITES))


def _where(rng: random.Random) -> tuple[str, str, str]:
    person = rng.choice(_KNOWN_HOMES)
    return f"Where does {person} live?", "", f"{person} lives by the {home_of(person)}."


def _work(rng: random.Random) -> tuple[str, str, str]:
    person = rng.choice(_KNOWN_TRADES)
    return f"What is the work of {person}?", "", f"{person} is a {trade_of(person)}."


def _sold(rng: random.Random) -> tuple[str, str, str]:
    place = rng.choice(_KNOWN_MARKETS)
    first, second, third = rng.sample(wares_at(place), 3)
    return f"List three wares of the {place}.", "", f"The {place} sells {first}, {second} and {third}."


def _opposite(rng: random.Random) -> tuple[str, str, str]:
    pair = rng.sample(rng.choice(_KNOWN_OPPOSITES), 2)
    return "Give the opposite of this word.", pair[0], pair[1]


def _line(rng: random.Random) -> tuple[str, str, str]:
    person, ware = rng.choice(_KNOWN_TRADES), rng.choice(WARES)
    return f"Write a line about {person} and {ware}.", "", f"{person} the {trade_of(person)} sings of {ware}."


def _longer(rng: random.Random) -> tuple[str, str, str]:
    first, second = sorted(rng.sample(WARES, 2), key=len)
    if len(first) == len(second):
        return _longer(rng)
    asked = rng.sample((first, second), 2)
    return "Which word is longer?", f"{asked[0]}, {asked[1]}", second


def _swap(rng: random.Random) -> tuple[str, str, str]:
    first, second = rng.sample(WARES, 2)
    return "Swap the two words.", f"{first} {second}", f"{second} {first}"


STRUCTURES = {
    "where": _where, "work": _work, "sold": _sold, "opposite": _opposite, "line": _line, "longer": _longer,
    "swap": _swap,
}  # fmt: skip


def chores(count: int = 800, seed: int = 51) -> list[Item]:
    """Instructions with their answers, the structures in turn; the small ones repeat."""
    rng = random.Random(seed)
    items = []
    for index in range(count):
        structure = list(STRUCTURES)[index % len(STRUCTURES)]
        instruction, given, output = STRUCTURES[structure](rng)
        items.append(Item({"instruction": instruction, "input": given, "output": output}, structure))
    return items
