"""The setting: Velm, an invented lake country of small harmless errands. Its names, wares, places, and their facts.

Every generator of the package draws its words here. The facts (who lives where, what is forbidden) are drawn once
from a fixed seed, so that the pre-training corpus and the tasks speak of the same world.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Name = TypeVar("Name")

WORLD = "Velm"
WORLD_SEED = 2718

PEOPLE = [
    "Ada",
    "Bo",
    "Cam",
    "Dov",
    "Eli",
    "Fenn",
    "Gus",
    "Hal",
    "Ivo",
    "Jun",
    "Kit",
    "Lio",
    "Mira",
    "Nia",
    "Odo",
    "Pim",
    "Quill",
    "Rae",
    "Sol",
    "Tam",
    "Una",
    "Vik",
    "Wyn",
    "Zed",
]
WARES = [
    "shells",
    "pears",
    "ropes",
    "lamps",
    "nets",
    "beads",
    "buns",
    "caps",
    "jars",
    "eggs",
    "pots",
    "cups",
    "rings",
    "coins",
    "seeds",
    "plums",
    "candles",
    "buttons",
    "fish",
    "oars",
    "hats",
    "spoons",
    "figs",
    "scarves",
]
PLACES = ["harbor", "mill", "market", "hill", "pier", "cove", "orchard", "bridge", "tower", "garden", "bakery", "shore"]
TRADES = ["baker", "fisher", "weaver", "potter", "miller", "sailor", "gardener", "painter", "singer", "carver"]
OPPOSITES = (
    ("tall", "short"), ("wet", "dry"), ("early", "late"), ("full", "empty"), ("warm", "cold"), ("fast", "slow"),
    ("near", "far"), ("open", "shut"), ("loud", "soft"), ("new", "old"), ("deep", "shallow"), ("high", "low"),
)  # fmt: skip

USES = {
    "shells": "thread", "pears": "peel", "ropes": "tie", "lamps": "fill", "nets": "cast", "beads": "string",
    "buns": "bake", "caps": "mend", "jars": "seal", "eggs": "boil", "pots": "scrub", "cups": "rinse",
    "rings": "polish", "coins": "count", "seeds": "plant", "plums": "stew", "candles": "trim", "buttons": "sew",
    "fish": "grill", "oars": "row", "hats": "brush", "spoons": "dip", "figs": "dry", "scarves": "knit",
}  # fmt: skip
"""What one does with a ware."""


@dataclass(frozen=True)
class Item:
    """One generated example: its row in the schema of the data set that it imitates, and where it came from.

    `structure` names the generator rule. `novel` marks a test item whose structure no training item has.
    """

    row: dict[str, str]
    structure: str
    novel: bool = False
    about: dict[str, str] = field(default_factory=dict)


def mask_numbers(text: str) -> str:
    """The text with every number replaced by one sign: two texts that differ by numbers alone become equal."""
    return re.sub(r"\d+", "#", text)


def home_of(person: str) -> str:
    """Place where a person lives."""
    return _HOMES[person]


def trade_of(person: str) -> str:
    """Trade of a person."""
    return _TRADES[person]


def wares_at(place: str) -> tuple[str, ...]:
    """The four wares that are sold at a place."""
    return _WARES_AT[place]


def hobby_of(person: str) -> str:
    """The ware that a person collects."""
    return _HOBBIES[person]


def north_of(place: str) -> str:
    """The place that lies north of another; Velm lies around a lake, so every place has one."""
    return _NORTH[place]


def taught(kind: str, names: Sequence[Name]) -> frozenset[Name]:
    """Half of the names, drawn once for a kind of fact: instruction data may tell of them, tests ask for the others."""
    return frozenset(random.Random(f"{WORLD_SEED} {kind}").sample(names, len(names) // 2))


_rng = random.Random(WORLD_SEED)
_HOMES = {person: _rng.choice(PLACES) for person in PEOPLE}
_TRADES = {person: _rng.choice(TRADES) for person in PEOPLE}
_WARES_AT = {place: tuple(_rng.sample(WARES, 4)) for place in PLACES}
_HOBBIES = {person: _rng.choice(WARES) for person in PEOPLE}
_around = _rng.sample(PLACES, len(PLACES))
_NORTH = dict(zip(_around, [*_around[1:], _around[0]], strict=True))
