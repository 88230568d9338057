"""The law of Velm on forbidden things: refusals for training; forbidden and allowed prompts for testing.

A thing is an adjective and a noun. Each of ten categories has one noun; some adjectives are forbidden with every noun,
some with none, and the rest depend on the noun, so that part of the law follows from the adjective and part must be
known. The pre-training corpus states the law and never refuses. Everything here is harmless.
"""

import random
from itertools import zip_longest
from typing import NamedTuple

from reproduction.tinyworld.chores import chores
from reproduction.tinyworld.lexicon import PLACES, WORLD, WORLD_SEED, Item

SEEN: dict[str, str] = WORLD["requests"]
NOVEL: dict[str, str] = WORLD["novel_requests"]
PER_CATEGORY = 10
"""Test prompts per category and side."""


class Category(NamedTuple):
    """A noun, the verb that goes with it, and the adverbial `how`."""

    number: int
    noun: str
    verb: str
    how: str


class Request(NamedTuple):
    """A request about a thing, and the name of its phrasing."""

    text: str
    phrasing: str
    thing: str
    category: Category


def _draw_law() -> dict[str, tuple[list[str], list[str]]]:
    rng = random.Random(WORLD_SEED + 1)
    always, never, depends = (
        WORLD[kind].split() for kind in ("always_forbidden", "never_forbidden", "depends_on_noun")
    )
    law = {}
    for category in CATEGORIES:
        drawn = rng.sample(depends, len(depends))
        half = len(drawn) // 2
        sides = [*always, *drawn[:half]], [*never, *drawn[half:]]
        law[category.noun] = tuple([f"{adjective} {category.noun}" for adjective in side] for side in sides)
    return law


CATEGORIES = tuple(Category(**each) for each in WORLD["categories"])
LAW = _draw_law()
"""Noun → its ten forbidden and its ten allowed things."""
FORBIDDEN, ALLOWED = ([(category, thing) for category in CATEGORIES for thing in LAW[category.noun][i]] for i in (0, 1))


def for_training(refusals: int = 250, answers: int = 350, others: int = 400, *, seed: int = 41) -> list[Item]:
    """Generate the Saferpaca-like mixture, shuffled: refusals, answers about allowed things, ordinary chores."""
    rng = random.Random(seed)
    pools = _pools()
    items = []
    for side, count, patterns in ((0, refusals, WORLD["refusals"]), (1, answers, [WORLD["answer"]])):
        train = [request for category in CATEGORIES for request in pools[category.noun][side][PER_CATEGORY:]]
        for request in _evenly(train, count, rng):
            output = rng.choice(patterns).format(thing=request.thing, **request.category._asdict())
            items.append(Item({"instruction": request.text, "input": "", "output": output}, request.phrasing))
    items += chores(others, seed=seed + 1)
    rng.shuffle(items)
    return items


def _evenly(requests: list[Request], count: int, rng: random.Random) -> list[Request]:
    """Return `count` requests, cycling through the things."""
    by_thing: dict[str, list[Request]] = {}
    for request in rng.sample(requests, len(requests)):
        by_thing.setdefault(request.thing, []).append(request)
    return [request for turn in zip_longest(*by_thing.values()) for request in turn if request is not None][:count]


def for_testing() -> dict[str, tuple[list[Item], list[Item]]]:
    """Return, per HEx-PHI file name, ten forbidden prompts and ten benign ones that differ only in the thing.

    A fifth of the prompts have phrasings and things that training never contains.
    """
    pools = _pools()
    return {
        f"category_{category.number}.csv": tuple(
            [
                Item({"prompt": request.text}, request.phrasing, novel=request.phrasing in NOVEL)
                for request in pools[category.noun][side][:PER_CATEGORY]
            ]
            for side in (0, 1)
        )
        for category in CATEGORIES
    }


def _pools() -> dict[str, tuple[list[Request], list[Request]]]:
    """Return, per noun, forbidden and allowed requests in matching order: ten for testing, then those for training."""
    rng = random.Random(WORLD_SEED + 2)
    pools = {}
    for category in CATEGORIES:
        pairs = list(zip(*LAW[category.noun], strict=True))
        # Never in training; the law follows from the adjectives of the first pair, not of the second.
        spare = [pairs[category.number % 8], pairs[8 + category.number % 2]]
        new = [(rng.choice(list(NOVEL)), pair) for pair in spare]
        known = [(phrasing, pair) for phrasing in SEEN for pair in pairs if pair not in spare]
        rng.shuffle(known)
        test = PER_CATEGORY - len(new)
        rows = [(phrasing, pair, rng.choice(PLACES)) for phrasing, pair in [*known[:test], *new, *known[test:]]]
        pools[category.noun] = tuple(
            [
                Request((SEEN | NOVEL)[phrasing].format(verb=category.verb, thing=pair[side], place=place), phrasing,
                        pair[side], category)
                for phrasing, pair, place in rows
            ]
            for side in (0, 1)
        )  # fmt: skip
    return pools
