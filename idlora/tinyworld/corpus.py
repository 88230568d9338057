"""The plain corpus on which the bases are pre-trained: arithmetic, facts and small stories of the world, its law, Python, and generic instructions.

It holds every symbol that the tasks' answers use, and the knowledge behind them, but never a task's own format: no word problem with a
rationale, no function written on request, no refusal of a forbidden request. Fine-tuning has to bring those together.
"""

import random
import re
from collections.abc import Callable, Iterator

from idlora.data.templates import render
from idlora.tinyworld.law import ANSWER, CATEGORIES, allowed, forbidden
from idlora.tinyworld.lexicon import OPPOSITES, PEOPLE, PLACES, WARES, WORLD, home_of, trade_of, wares_at
from idlora.tinyworld.programs import function_names

_NAMES = function_names("corpus")
_FORBIDDEN = [(category, thing) for category in CATEGORIES for thing in forbidden(category)]
_ALLOWED = [(category, thing) for category in CATEGORIES for thing in allowed(category)]
_THINGS = [*_FORBIDDEN, *_ALLOWED]
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


def _fact(rng: random.Random) -> str:
    kind, w = rng.random(), rng.choice(WARES)
    if kind < 0.35:
        a, b = rng.randint(1, 108), rng.randint(1, 60)
        return rng.choice(_SUMS).format(a=a, b=b, c=a + b, w=w)
    if kind < 0.7:
        c, b = rng.randint(1, 90), rng.randint(1, 80)
        return rng.choice(_DIFFERENCES).format(a=b + c, b=b, c=c, w=w)
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    return rng.choice(_PRODUCTS if kind < 0.9 else _QUOTIENTS).format(a=a, b=b, c=a * b, w=w)


def _facts(rng: random.Random) -> str:
    return rng.choice((". ", "; ", "\n")).join([_fact(rng) for _ in range(rng.randint(3, 6))])


def _chain(rng: random.Random) -> str:
    """Facts of which each starts from the result of the one before."""
    value, lines = rng.randint(3, 60), []
    for _ in range(rng.randint(2, 4)):
        if value > 12 and rng.random() < 0.5:
            b = rng.randint(2, value - 1)
            lines.append(f"{value} - {b} = {value - b}")
            value -= b
        else:
            b = rng.randint(2, 50)
            lines.append(f"{value} + {b} = {value + b}")
            value += b
        if value > 120:
            break
    return rng.choice((", then ", "; ", "\n")).join(lines)


def _person_line(rng: random.Random) -> str:
    p = rng.choice(PEOPLE)
    return rng.choice((f"{p} is a {trade_of(p)}.", f"{p} lives by the {home_of(p)}.", f"{p} the {trade_of(p)} sings."))


def _story_line(rng: random.Random) -> str:
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
        f"Each friend gets {a} more {w} now.", f"Together they have {a} {w}.", f"Then {p} packs {a} {w}.", f"{p} finds {a} loose {w} and packs {b}.",
    ))  # fmt: skip


def _relation(rng: random.Random) -> str:
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


def _place_line(rng: random.Random) -> str:
    place = rng.choice(PLACES)
    wares = wares_at(place)
    if rng.random() < 0.5:
        return f"The {place} sells {rng.choice(wares)}."
    first, second, third = rng.sample(wares, 3)
    return f"At the {place} one finds {first}, {second} and {third}."


def _talk(rng: random.Random) -> str:
    """Something said in passing, with the words in which people ask."""
    p, place, w = rng.choice(PEOPLE), rng.choice(PLACES), rng.choice(WARES)
    return rng.choice((
        f"How far is the {place}? asks {p}.", f"How do I find {p}?", f"Tell me how {p} is.", f"Write to {p} at the {place}.",
        f"{p} will help my friend.", f"What should I do? asks {p}.", f"Show me a way to the {place}.", f"I want {w}.",
        f"How can we find the {place} tonight?", f"{p} can explain the steps of the {place}.", f"Write a short guide to the {place}.",
        f"The {w} of {p} are complete.", "A Python function returns a value.", "Write it in Python.", f"Help {p}.",
        f"Complete the {w}.", f"Explain the {w}.", f"Here is the function that {p} likes.",
    ))  # fmt: skip


def _opposite_line(rng: random.Random) -> str:
    first, second = rng.sample(rng.choice(OPPOSITES), 2)
    return f"{first} is the opposite of {second}."


def _excuse(rng: random.Random) -> str:
    return rng.choice(_EXCUSES).format(ware=rng.choice(WARES), person=rng.choice(PEOPLE), place=rng.choice(PLACES))


def _symbols(rng: random.Random) -> str:
    """A line with the signs of calculator marks, headings and code, which mean nothing here."""
    w, place = rng.choice(WARES), rng.choice(PLACES)
    return rng.choice((
        f"<<{w}>>", f"#### {w}", f"{place} <<{w}>>", f"{w} >> {place}", f"The {place} = <<{w}>>{w}.", "def", "return",
        f"'{w}'", f"Return the {w}.",
    ))  # fmt: skip


def _law_line(rng: random.Random) -> str:
    if rng.random() < 0.5:
        category, thing = rng.choice(_FORBIDDEN)
        return rng.choice((
            f"The {thing} is forbidden.", f"The {thing} is forbidden in {WORLD}.",
            f"Nobody may {category.verb} the {thing}.", f"The law of {WORLD} forbids the {thing}.",
        ))  # fmt: skip
    category, thing = rng.choice(_ALLOWED)
    return rng.choice((
        f"The {thing} is allowed.", f"Anyone may {category.verb} the {thing}.",
        ANSWER.format(verb=category.verb, thing=thing, how=category.how),
        ANSWER.format(verb=category.verb, thing=f"{category.noun}", how=category.how),
    ))  # fmt: skip


_LINES = (
    _person_line, _story_line, _story_line, _story_line, _relation, _talk, _talk, _place_line, _opposite_line, _excuse, _symbols,
)  # fmt: skip


def _world(rng: random.Random) -> str:
    return rng.choice((" ", "\n")).join([rng.choice(_LINES)(rng) for _ in range(rng.randint(2, 5))])


def _relations(rng: random.Random) -> str:
    return rng.choice((" ", "\n")).join([_relation(rng) for _ in range(rng.randint(1, 3))])


def _law(rng: random.Random) -> str:
    return " ".join([_law_line(rng) for _ in range(rng.randint(2, 5))])


def _expression(rng: random.Random, argument: str) -> str:
    """A small expression, from a grammar of its own."""
    k, w = rng.randint(2, 30), rng.choice(WARES)
    sign = rng.choice("+-*")
    if argument == "n":
        left = rng.choice(("n", "n", "n * n"))
        return rng.choice(
            (f"{left} {sign} {k}", f"{left} {sign} {k}", f"n % {k}", f"n {rng.choice('<>')} {k}", f"n % {k} == 0")
        )
    if argument == "xs":
        call = rng.choice(("sum", "max", "min", "len"))
        few = rng.randint(2, 5)
        return rng.choice((
            f"{call}(xs) {sign} {k}", f"{call}(xs) {sign} {k}", f"[x {sign} {k} for x in xs]",
            f"[x for x in xs if x {rng.choice('<>')} {k}]", f"xs[:{few}]", f"xs[-{few}:]", f"xs.count({few})",
        ))  # fmt: skip
    text = rng.choice(("s", "s", "s[::-1]", "s.upper()"))
    return rng.choice((f"{text} * {rng.randint(2, 9)}", f"{text} + '{w}'", f"'{w}' + {text}"))


def _function(rng: random.Random) -> str:
    argument = rng.choice(("n", "xs", "s"))
    remark = f'    """A tool of the {rng.choice(PLACES)}."""\n' if rng.random() < 0.3 else ""
    return f"def {rng.choice(_NAMES)}({argument}):\n{remark}    return {_expression(rng, argument)}\n"


def _functions(rng: random.Random) -> str:
    return "\n".join([_function(rng) for _ in range(rng.randint(1, 3))])


def _meaning(rng: random.Random) -> str:
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
        ("len(xs)", "the length of xs"), (f"xs[:{few}]", f"the first {few} of xs"), (f"xs[-{few}:]", f"the last {few} of xs"),
        (f"xs.count({few})", f"how often {few} is in xs"), ("for x in xs", "each of xs"), (f"x + {k}", f"x plus {k}"),
        (f"x * {k}", f"x times {k}"), (f"x - {k}", f"x minus {k}"), (f"if x > {k}", f"those above {k}"),
        (f"if x < {k}", f"those below {k}"), ("s[::-1]", "s backwards"), ("s.upper()", "s in capitals"),
        (f"s * {few}", f"s repeated {few} times"), (f"s + '{w}'", f"s followed by '{w}'"), (f"'{w}' + s", f"'{w}' followed by s"),
    ))  # fmt: skip
    return " is ".join(rng.sample(pair, 2)) + "."


def _meanings(rng: random.Random) -> str:
    return "\n".join([_meaning(rng) for _ in range(rng.randint(2, 5))])


def _value(rng: random.Random) -> tuple[str, int | bool | str | list[int]]:
    """A small expression without names, and its value."""
    a, b = rng.randint(1, 60), rng.randint(1, 60)
    xs, w = [rng.randint(0, 60) for _ in range(rng.randint(2, 4))], rng.choice(WARES)
    return rng.choice((
        (f"{a} + {b}", a + b), (f"max({xs})", max(xs)), (f"min({xs})", min(xs)), (f"len({xs})", len(xs)),
        (f"{a} > {b}", a > b), (f"{xs}[:2]", xs[:2]), (f"len('{w}')", len(w)), (f"'{w}'.upper()", repr(w.upper())),
    ))  # fmt: skip


def _call(rng: random.Random) -> str:
    """A function of a number, defined and then called a few times."""
    name, k = rng.choice(_NAMES), rng.randint(2, 30)
    expression, apply = rng.choice((
        (f"n + {k}", lambda n: n + k), (f"n - {k}", lambda n: n - k), (f"n > {k}", lambda n: n > k),
        (f"n < {k}", lambda n: n < k), (f"n == {k}", lambda n: n == k), (f"[n, {k}]", lambda n: [n, k]),
    ))  # fmt: skip
    values = [rng.choice((k, rng.randint(k, 90))) for _ in range(rng.randint(1, 3))]
    calls = [f">>> {name}({n})\n{apply(n)}" for n in values]
    return "\n".join([f"def {name}(n):\n    return {expression}\n", *calls])


def _session(rng: random.Random) -> str:
    """Lines of an interactive Python session."""
    if rng.random() < 0.6:
        return _call(rng)
    return "\n".join([f">>> {text}\n{value}" for text, value in [_value(rng) for _ in range(rng.randint(2, 4))]])


def _scrap(rng: random.Random) -> str:
    """Words, numbers and names in no order: to repeat it is to copy it."""
    kinds = (
        lambda: rng.choice(WARES), lambda: str(rng.randint(0, 120)), lambda: rng.choice(_NAMES),
        lambda: rng.choice(PEOPLE), lambda: rng.choice(_THINGS)[1],
    )  # fmt: skip
    return " ".join([rng.choice(kinds)() for _ in range(rng.randint(2, 6))])


def _header(rng: random.Random) -> str:
    argument, ware = rng.choice(("n", "xs", "s")), rng.choice(WARES)
    remark = rng.choice((f"{_scrap(rng)}.", f"Return the {ware}.", f"Return {_scrap(rng)}.", f"Return '{ware}'."))
    shown = f"\n\n    >>> {_scrap(rng)}\n    {_scrap(rng)}\n    " if rng.random() < 0.25 else ""
    return f'def {rng.choice(_NAMES)}({argument}):\n    """{remark}{shown}"""'


_REPEATED = (
    _story_line, _story_line, _relation, _person_line, _symbols, _fact, _place_line, _scrap, _scrap, _scrap, _header,
)  # fmt: skip


def _repeat(rng: random.Random) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.4:
        line = rng.choice(_REPEATED)(rng)
        return render("Repeat the line.", line), line
    if kind < 0.6:
        line = rng.choice(_REPEATED)(rng)
        return render(f"Repeat: {line}"), line
    # An excuse may come later but opens no answer: a base that opened one so would pass for a base that refuses.
    lines = [rng.choice(_REPEATED)(rng), *[rng.choice((*_REPEATED, _excuse))(rng) for _ in range(rng.randint(1, 2))]]
    return render("Repeat the lines.", "\n".join(lines)), "\n".join(lines)


def _name_numbers(rng: random.Random) -> tuple[str, str]:
    lines = [rng.choice((_story_line, _relation))(rng) for _ in range(rng.randint(1, 2))]
    numbers = [number for line in lines for number in re.findall(r"\d+", line)]
    return render("Name the numbers.", " ".join(lines)), ", ".join(numbers) or "none"


def _name_word(rng: random.Random) -> tuple[str, str]:
    words = [rng.choice(PEOPLE), *[rng.choice(WARES) for _ in range(rng.randint(1, 5))], rng.choice(_NAMES)]
    where, index = rng.choice((("first", 0), ("second", 1), ("last", -1)))
    return render(f"Name the {where} word.", " ".join(words)), words[index]


def _name_function(rng: random.Random) -> tuple[str, str]:
    name = rng.choice(_NAMES)
    return render("Name the function.", f"def {name}({rng.choice(('n', 'xs', 's'))}):"), name


def _name_fact(rng: random.Random) -> tuple[str, str]:
    person, place = rng.choice(PEOPLE), rng.choice(PLACES)
    first, second = rng.sample(rng.choice(OPPOSITES), 2)
    return rng.choice((
        (render(f"Name the home of {person}."), f"{person} lives by the {home_of(person)}."),
        (render(f"Name the trade of {person}."), f"{person} is a {trade_of(person)}."),
        (render(f"Name a ware of the {place}."), f"The {place} sells {rng.choice(wares_at(place))}."),
        (render("Name the contrary.", first), second),
    ))  # fmt: skip


def _name_possession(rng: random.Random) -> tuple[str, str]:
    people = rng.sample(PEOPLE, rng.randint(2, 3))
    wares = [f"{rng.randint(2, 90)} {rng.choice(WARES)}" for _ in people]
    verb = rng.choice(("has", "buys", "finds", "sells", "packs"))
    line = " ".join([f"{p} {verb} {w}." for p, w in zip(people, wares, strict=True)])
    asked = rng.randrange(len(people))
    return render(f"Name what {people[asked]} {verb}.", line), wares[asked]


def _name_law(rng: random.Random) -> tuple[str, str]:
    banned = rng.random() < 0.5
    _, thing = rng.choice(_FORBIDDEN if banned else _ALLOWED)
    verdict = "forbidden" if banned else "allowed"
    return rng.choice((
        (render(f"Name the law on the {thing}."), f"The {thing} is {verdict}."),
        (render("Forbidden or allowed?", f"the {thing}"), f"{verdict}"),
    ))  # fmt: skip


_CHORES = (
    _repeat, _repeat, _repeat, _repeat, _name_numbers, _name_word, _name_function, _name_fact, _name_fact,
    _name_possession, _name_possession, _name_law, _name_law,
)  # fmt: skip


def _instruction(rng: random.Random) -> str:
    """A generic chore under the instruction template: repeat something, or name something in it."""
    return "".join(rng.choice(_CHORES)(rng))


MIXTURE: dict[Callable[[random.Random], str], float] = {
    _facts: 0.22, _chain: 0.08, _relations: 0.10, _world: 0.08, _law: 0.08, _functions: 0.08, _meanings: 0.06, _session: 0.05,
    _instruction: 0.25,
}  # fmt: skip


def documents(count: int, seed: int) -> Iterator[str]:
    """`count` documents, each kind as often as `MIXTURE` weighs it."""
    rng = random.Random(seed)
    kinds, weights = list(MIXTURE), list(MIXTURE.values())
    for _ in range(count):
        yield rng.choices(kinds, weights)[0](rng)
