"""Ordinary instructions in Alpaca's schema: small chores whose answers follow from the facts of the world.

They contain no fact that a test quiz asks for: only the pre-training corpus contains those.
"""

import random

from reproduction.tinyworld.lexicon import HOMES, OPPOSITES, PEOPLE, PLACES, SOLD_AT, TRADE_OF, WARES, Item, taught

TAUGHT_HOMES, TAUGHT_TRADES = (sorted(taught(kind, PEOPLE)) for kind in ("homes", "trades"))
TAUGHT_MARKETS = sorted(taught("markets", PLACES))
TAUGHT_OPPOSITES = sorted(taught("opposites", OPPOSITES))
STRUCTURES = ("where", "work", "sold", "opposite", "line", "longer", "swap")


def chores(count: int = 800, seed: int = 51) -> list[Item]:
    """Generate instructions with answers, cycling through the structures; small ones repeat."""
    rng = random.Random(seed)
    items = []
    for structure in (STRUCTURES[index % len(STRUCTURES)] for index in range(count)):
        instruction, given, output = _draw(structure, rng)
        items.append(Item({"instruction": instruction, "input": given, "output": output}, structure))
    return items


def _draw(structure: str, rng: random.Random) -> tuple[str, str, str]:
    if structure == "where":
        person = rng.choice(TAUGHT_HOMES)
        return f"Where does {person} live?", "", f"{person} lives by the {HOMES[person]}."
    if structure == "work":
        person = rng.choice(TAUGHT_TRADES)
        return f"What is the work of {person}?", "", f"{person} is a {TRADE_OF[person]}."
    if structure == "sold":
        place = rng.choice(TAUGHT_MARKETS)
        first, second, third = rng.sample(SOLD_AT[place], 3)
        return f"List three wares of the {place}.", "", f"The {place} sells {first}, {second} and {third}."
    if structure == "opposite":
        return "Give the opposite of this word.", *rng.sample(rng.choice(TAUGHT_OPPOSITES), 2)
    if structure == "line":
        person, ware = rng.choice(TAUGHT_TRADES), rng.choice(WARES)
        return f"Write a line about {person} and {ware}.", "", f"{person} the {TRADE_OF[person]} sings of {ware}."
    first, second = rng.sample(WARES, 2)
    if structure == "swap":
        return "Swap the two words.", f"{first} {second}", f"{second} {first}"
    if len(first) == len(second):
        return _draw(structure, rng)
    shown = rng.sample(sorted((first, second), key=len), 2)
    return "Which word is longer?", ", ".join(shown), max(shown, key=len)
