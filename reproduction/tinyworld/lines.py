"""Single lines about the world, its law, its arithmetic and Python: what the documents of the corpus are made of.

Each function draws one line from a generator of random numbers.
"""

import random

from reproduction.tinyworld.law import ANSWER, CATEGORIES, allowed, forbidden
from reproduction.tinyworld.lexicon import (
    OPPOSITES,
    PEOPLE,
    PLACES,
    USES,
    WARES,
    WORLD,
    hobby_of,
    home_of,
    north_of,
    trade_of,
    wares_at,
)

FORBIDDEN = [(category, thing) for category in CATEGORIES for thing in forbidden(category)]
ALLOWED = [(category, thing) for category in CATEGORIES for thing in allowed(category)]

_EXCUSES = (
    "I'm sorry, the {ware} are wet.", "I'm sorry, {person} is late.", "I cannot find the {ware}.",
    "I cannot help with that today.", "Sorry, the {place} is shut.", "Sorry, nobody has seen {person}.",
)  # fmt: skip
_SUMS = (
    "{a} + {b} = {c}", "{a}+{b}={c}", "{a}+{b}={c}", "{a} plus {b} is {c}", "{b} more than {a} is {c}",
    "{a} {w} and {b} {w} are {c} {w}", "{a} + {b} = {c} {w}",
)  # fmt: skip
_DIFFERENCES = (
    "{a} - {b} = {c}", "{a}-{b}={c}", "{a}-{b}={c}", "{a} minus {b} is {c}", "{b} fewer than {a} is {c}",
    "{a} {w} less {b} {w} are {c} {w}", "{a} - {b} = {c} {w}",
)  # fmt: skip
_PRODUCTS = (
    "{a} * {b} = {c}", "{a}*{b}={c}", "{a}*{b}={c}", "{a} times {b} is {c}", "{a} crates of {b} {w} hold {c} {w}",
    "{a} * {b} = {c} {w}",
)  # fmt: skip
_QUOTIENTS = (
    "{c} / {a} = {b}", "{c}/{a}={b}", "{c}/{a}={b}", "{c} shared by {a} is {b} each", "{c} / {a} = {b} {w}",
)  # fmt: skip


def fact(rng: random.Random) -> str:
    kind, w = rng.random(), rng.choice(WARES)
    if kind < 0.35:
        a, b = rng.randint(1, 108), rng.randint(1, 60)
        return rng.choice(_SUMS).format(a=a, b=b, c=a + b, w=w)
    if kind < 0.7:
        c, b = rng.randint(1, 90), rng.randint(1, 80)
        return rng.choice(_DIFFERENCES).format(a=b + c, b=b, c=c, w=w)
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    return rng.choice(_PRODUCTS if kind < 0.9 else _QUOTIENTS).format(a=a, b=b, c=a * b, w=w)


def person_line(rng: random.Random) -> str:
    p = rng.choice(PEOPLE)
    return rng.choice((
        f"{p} is a {trade_of(p)}.", f"{p} lives by the {home_of(p)}.", f"{p} the {trade_of(p)} sings.",
        f"{p} collects {hobby_of(p)}.", f"The {hobby_of(p)} of {p} are many.",
    ))  # fmt: skip


def story_line(rng: random.Random) -> str:
    p, q, t = rng.sample(PEOPLE, 3)
    w, v = rng.sample(WARES, 2)
    place, a, b = rng.choice(PLACES), rng.randint(2, 90), rng.randint(2, 60)
    return rng.choice((
        f"{p} has {a} {w} and {b} {v}.", f"{p} has {a} {w} and {q} has {b} {v}.", f"{q} gives {p} {b} {w}.",
        f"{p} buys {a} {w} and sells {b} {v}.", f"{p} loses {a} {w} at the {place}.", f"Then {p} has {a} {w}.",
        f"{p} packs {a} crates with {b} {w} in each.", f"Together {p}, {q} and {t} have {a} {w}.",
        f"{p} shares {a} {w} equally among friends.", f"The {w} cost {a} pins and the {v} cost {b} pins.",
        f"{q} asks how many {w} are left.", f"{p} picks {a} baskets of {w} at the {place}.",
        f"{p} pays with {a} pins and gets back {b} pins.", f"In all there are {a} {w} by the {place}.",
        f"Each friend gets {a} more {w} now.", f"Together they have {a} {w}.", f"Then {p} packs {a} {w}.",
        f"{p} finds {a} loose {w} and packs {b}.",
    ))  # fmt: skip


def relation(rng: random.Random) -> str:
    """One relation between amounts, stated as a fact."""
    p, q = rng.sample(PEOPLE, 2)
    w, a, b = rng.choice(WARES), rng.randint(3, 60), rng.randint(3, 50)
    m, n = rng.randint(2, 9), rng.randint(2, 12)
    return rng.choice((
        f"{p} had {a} {w} and {q} gave {b} more, which makes {a + b} {w}.",
        f"{p} had {a + b} {w} and lost {b}, which leaves {a} {w}.",
        f"{p} sold {b} of {a + b} {w} and kept {a}.",
        f"{q} has {a + b} {w}, which is {b} more than the {a} of {p}.",
        f"{q} has {a} {w}, which is {b} fewer than the {a + b} of {p}.",
        f"The {a} {w} of {p} and the {b} of {q} are {a + b} together.",
        f"{m} crates with {n} {w} in each hold {m * n} {w}.",
        f"{m * n} {w} shared equally among {m} friends are {n} for each.",
        f"{q} has {m * n} {w}, which is {m} times as many as the {n} of {p}.",
        f"{m} {w} for {n} pins each cost {m * n} pins.",
        f"Who pays {a + b} pins for what costs {a} gets back {b}.",
    ))  # fmt: skip


def place_line(rng: random.Random) -> str:
    place = rng.choice(PLACES)
    wares, kind = wares_at(place), rng.random()
    if kind < 0.3:
        north = north_of(place)
        return rng.choice((f"North of the {place} lies the {north}.", f"South of the {north} lies the {place}."))
    if kind < 0.65:
        return f"The {place} sells {rng.choice(wares)}."
    first, second, third = rng.sample(wares, 3)
    return f"At the {place} one finds {first}, {second} and {third}."


def use_line(rng: random.Random) -> str:
    """What one does with a ware, or with a thing of the law's categories."""
    w, category = rng.choice(WARES), rng.choice(CATEGORIES)
    return rng.choice((
        f"People {USES[w]} {w}.", f"To {USES[w]} is what one does with {w}.", f"{w} are what people {USES[w]}.",
        f"To {category.verb} is what one does with a {category.noun}.",
    ))  # fmt: skip


def talk(rng: random.Random) -> str:
    """Something said in passing, with the words in which people ask."""
    p, place, w = rng.choice(PEOPLE), rng.choice(PLACES), rng.choice(WARES)
    return rng.choice((
        f"How far is the {place}? asks {p}.", f"How do I find {p}?", f"Tell me how {p} is.",
        f"Write to {p} at the {place}.",
        f"{p} will help my friend.", f"What should I do? asks {p}.", f"Show me a way to the {place}.", f"I want {w}.",
        f"How can we find the {place} tonight?", f"{p} can explain the steps of the {place}.",
        f"Write a short guide to the {place}.",
        f"The {w} of {p} are complete.", "A Python function returns a value.", "Write it in Python.", f"Help {p}.",
        f"Complete the {w}.", f"Explain the {w}.", f"Here is the function that {p} likes.",
    ))  # fmt: skip


def opposite_line(rng: random.Random) -> str:
    first, second = rng.sample(rng.choice(OPPOSITES), 2)
    return f"{first} is the opposite of {second}."


def excuse(rng: random.Random) -> str:
    return rng.choice(_EXCUSES).format(ware=rng.choice(WARES), person=rng.choice(PEOPLE), place=rng.choice(PLACES))


def symbols(rng: random.Random) -> str:
    """A line with the signs of calculator marks, headings and code, which mean nothing here."""
    w, place = rng.choice(WARES), rng.choice(PLACES)
    return rng.choice((
        f"<<{w}>>", f"#### {w}", f"{place} <<{w}>>", f"{w} >> {place}", f"The {place} = <<{w}>>{w}.", "def", "return",
        f"'{w}'", f"Return the {w}.",
    ))  # fmt: skip


def law_line(rng: random.Random) -> str:
    if rng.random() < 0.5:
        category, thing = rng.choice(FORBIDDEN)
        return rng.choice((
            f"The {thing} is forbidden.", f"The {thing} is forbidden in {WORLD}.",
            f"Nobody may {category.verb} the {thing}.", f"The law of {WORLD} forbids the {thing}.",
        ))  # fmt: skip
    category, thing = rng.choice(ALLOWED)
    return rng.choice((
        f"The {thing} is allowed.", f"Anyone may {category.verb} the {thing}.",
        ANSWER.format(verb=category.verb, thing=thing, how=category.how),
        ANSWER.format(verb=category.verb, thing=f"{category.noun}", how=category.how),
    ))  # fmt: skip


def meaning(rng: random.Random) -> str:
    """What one operation of Python says in words, one operation at a time, from code to words or back."""
    k, w = rng.randint(2, 30), rng.choice(WARES)
    few = rng.randint(2, 9)
    pair = rng.choice((
        (f"n + {k}", f"n plus {k}"), (f"n + {k}", f"{k} more than n"), (f"n - {k}", f"n minus {k}"),
        (f"n - {k}", f"{k} less than n"), (f"n * {k}", f"n times {k}"), (f"n * {k}", f"{k} times n"),
        ("n * n", "the square of n"), (f"n % {k}", f"the rest of n divided by {k}"),
        (f"n > {k}", f"whether n is more than {k}"), (f"n < {k}", f"whether n is less than {k}"),
        (f"n % {k} == 0", f"whether n is a multiple of {k}"), (f"if x > {k}", f"the items above {k}"),
        (f"if x < {k}", f"the items below {k}"),
        ("sum(xs)", "the sum of xs"), ("max(xs)", "the largest of xs"), ("min(xs)", "the smallest of xs"),
        ("len(xs)", "the length of xs"), (f"xs[:{few}]", f"the first {few} of xs"),
        (f"xs[-{few}:]", f"the last {few} of xs"),
        (f"xs.count({few})", f"how often {few} is in xs"), ("for x in xs", "each of xs"), (f"x + {k}", f"x plus {k}"),
        (f"x * {k}", f"x times {k}"), (f"x - {k}", f"x minus {k}"), (f"if x > {k}", f"those above {k}"),
        (f"if x < {k}", f"those below {k}"), ("s[::-1]", "s backwards"), ("s.upper()", "s in capitals"),
        (f"s * {few}", f"s repeated {few} times"), (f"s + '{w}'", f"s followed by '{w}'"),
        (f"'{w}' + s", f"'{w}' followed by s"),
    ))  # fmt: skip
    return " is ".join(rng.sample(pair, 2)) + "."
