"""The world Velm: words and sentences from `world.yaml`, and facts drawn at random with a fixed seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

Name = TypeVar("Name")

WORLD_SEED = 2718
WORLD = yaml.safe_load((Path(__file__).parent / "world.yaml").read_text(encoding="utf-8"))
PEOPLE, PLACES, TRADES = (WORLD[kind].split() for kind in ("people", "places", "trades"))
USES: dict[str, str] = WORLD["wares"]
WARES = [*USES]
OPPOSITES = tuple(map(tuple, WORLD["opposites"]))

_rng = random.Random(WORLD_SEED)
HOMES = {person: _rng.choice(PLACES) for person in PEOPLE}
TRADE_OF = {person: _rng.choice(TRADES) for person in PEOPLE}
SOLD_AT = {place: tuple(_rng.sample(WARES, 4)) for place in PLACES}
HOBBIES = {person: _rng.choice(WARES) for person in PEOPLE}
_around = _rng.sample(PLACES, len(PLACES))  # Velm lies around a lake
NORTH_OF = dict(zip(_around, [*_around[1:], _around[0]], strict=True))


@dataclass(frozen=True)
class Item:
    """One generated example.

    Args:
        row: fields in the schema of the imitated data set.
        structure: name of the rule that generated it.
        novel: whether it is a test item with a structure that no training item has.
    """

    row: dict[str, str]
    structure: str
    novel: bool = False


def taught(kind: str, names: Sequence[Name]) -> frozenset[Name]:
    """Return the fixed half of the names that instruction data use for a kind of fact; tests use the others."""
    return frozenset(random.Random(f"{WORLD_SEED} {kind}").sample(names, len(names) // 2))
