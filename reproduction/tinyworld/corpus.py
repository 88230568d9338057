"""Pre-training corpus of the bases: arithmetic, the world and its law, Python, generic instructions.

It contains every symbol and all knowledge that the tasks' answers need, but never a task's format: no word problem with
a rationale, no function written on request, no refusal of a forbidden request, no question answered by the letter of a
choice. Test facts appear only in its plain lines. Fine-tuning has to combine these.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

from reproduction.data.templates import render
from reproduction.tinyworld.chores import TAUGHT_HOMES, TAUGHT_MARKETS, TAUGHT_OPPOSITES, TAUGHT_TRADES
from reproduction.tinyworld.law import ALLOWED, CATEGORIES, FORBIDDEN
from reproduction.tinyworld.lexicon import (
    HOBBIES,
    HOMES,
    NORTH_OF,
    OPPOSITES,
    PEOPLE,
    PLACES,
    SOLD_AT,
    TRADE_OF,
    TRADES,
    USES,
    WARES,
    WORLD,
)
from reproduction.tinyworld.programs import function_names
from reproduction.tinyworld.quizzes import EVERYDAY, LETTERS, SUBJECTS, ask

Draw = Callable[[random.Random], str]

_NAMES = function_names("corpus")
_THINGS = [thing for _, thing in (*FORBIDDEN, *ALLOWED)]
_ASKED = [facts for name, facts in (SUBJECTS | {"everyday": EVERYDAY}).items() if "things" not in name]
_QUIZZES = [[fact for fact in facts if fact.taught] for facts in (*SUBJECTS.values(), EVERYDAY)]


def _line(rng: random.Random, kind: str, **values: object) -> str:
    """Draw a line of a kind from `world.yaml`."""
    return rng.choice(WORLD[kind]).format(**values)


def _several(drawn: Draw | Sequence[Draw], low: int, high: int, *, joins: str | Sequence[str] = (" ", "\n")) -> Draw:
    """Return a generator of documents of `low` to `high` lines, each by a random one of the given generators."""

    def document(rng: random.Random) -> str:
        join = joins if isinstance(joins, str) else rng.choice(joins)
        count = rng.randint(low, high)
        return join.join([(drawn if callable(drawn) else rng.choice(drawn))(rng) for _ in range(count)])

    return document


def _sum(rng: random.Random) -> str:
    kind, w = rng.random(), rng.choice(WARES)
    if kind < 0.35:
        a, b = rng.randint(1, 108), rng.randint(1, 60)
        return _line(rng, "sums", a=a, b=b, c=a + b, w=w)
    if kind < 0.7:
        c, b = rng.randint(1, 90), rng.randint(1, 80)
        return _line(rng, "differences", a=b + c, b=b, c=c, w=w)
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    return _line(rng, "products" if kind < 0.9 else "quotients", a=a, b=b, c=a * b, w=w)


def _chain(rng: random.Random) -> str:
    """Sums and differences, each starting from the previous result."""
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


def _person(rng: random.Random) -> str:
    p = rng.choice(PEOPLE)
    return _line(rng, "person", p=p, trade=TRADE_OF[p], home=HOMES[p], hobby=HOBBIES[p])


def _story(rng: random.Random) -> str:
    p, q, t = rng.sample(PEOPLE, 3)
    w, v = rng.sample(WARES, 2)
    place, a, b = rng.choice(PLACES), rng.randint(2, 90), rng.randint(2, 60)
    return _line(rng, "story", p=p, q=q, t=t, w=w, v=v, place=place, a=a, b=b)


def _relation(rng: random.Random) -> str:
    p, q = rng.sample(PEOPLE, 2)
    w, a, b = rng.choice(WARES), rng.randint(3, 60), rng.randint(3, 50)
    m, n = rng.randint(2, 9), rng.randint(2, 12)
    return _line(rng, "relation", p=p, q=q, w=w, a=a, b=b, c=a + b, m=m, n=n, product=m * n)


def _place(rng: random.Random) -> str:
    place = rng.choice(PLACES)
    kind = rng.random()
    if kind < 0.3:
        return _line(rng, "direction", place=place, north=NORTH_OF[place])
    if kind < 0.65:
        return f"The {place} sells {rng.choice(SOLD_AT[place])}."
    first, second, third = rng.sample(SOLD_AT[place], 3)
    return f"At the {place} one finds {first}, {second} and {third}."


def _use(rng: random.Random) -> str:
    w, category = rng.choice(WARES), rng.choice(CATEGORIES)
    return _line(rng, "use", w=w, use=USES[w], verb=category.verb, noun=category.noun)


def _talk(rng: random.Random) -> str:
    return _line(rng, "talk", p=rng.choice(PEOPLE), place=rng.choice(PLACES), w=rng.choice(WARES))


def _opposite(rng: random.Random) -> str:
    first, second = rng.sample(rng.choice(OPPOSITES), 2)
    return f"{first} is the opposite of {second}."


def _excuse(rng: random.Random) -> str:
    pattern = rng.choice(WORLD["excuse"])
    return pattern.format(w=rng.choice(WARES), p=rng.choice(PEOPLE), place=rng.choice(PLACES))


def _symbols(rng: random.Random) -> str:
    return _line(rng, "symbols", w=rng.choice(WARES), place=rng.choice(PLACES))


def _law(rng: random.Random) -> str:
    kind, side = ("forbidding", FORBIDDEN) if rng.random() < 0.5 else ("allowing", ALLOWED)
    category, thing = rng.choice(side)
    return _line(rng, kind, thing=thing, **category._asdict())


def _question(rng: random.Random) -> str:
    """A question about any fact, answered in words."""
    fact, person = rng.choice(rng.choice(_ASKED)), rng.choice(PEOPLE)
    return rng.choice((f"{fact.question} {fact.answer}.", f"{fact.question} asks {person}. It is {fact.answer}."))


def _listing(rng: random.Random) -> tuple[list[str], str]:
    """A few words of one kind, and the same as lines with letters."""
    words = rng.sample(rng.choice((WARES, PLACES, TRADES, [*USES.values()], _THINGS)), rng.randint(3, 5))
    return words, "\n".join(f"{letter}. {word}" for letter, word in zip(LETTERS, words, strict=False))


def _listings(rng: random.Random) -> str:
    """A list with letters, and lines that match letters to words."""
    words, listed = _listing(rng)
    lines = [
        rng.choice((f"{words[i]} is {LETTERS[i]}.", f"{LETTERS[i]} is {words[i]}.", f"{words[i]}: {LETTERS[i]}"))
        for i in rng.sample(range(len(words)), 3)
    ]
    return "\n".join([listed, *lines])


def _quiz(rng: random.Random) -> str:
    """A question about a taught fact with choices in brackets, and the answer with its mark and in words."""
    quiz = ask(rng.choice(rng.choice(_QUIZZES)), rng.randint(2, 5), rng)
    marks = rng.sample("abcdefghij", len(quiz.choices))
    listed = ", ".join(f"({mark}) {choice}" for mark, choice in zip(marks, quiz.choices, strict=True))
    return f"{quiz.question} {listed}. It is ({marks[quiz.gold]}) {quiz.choices[quiz.gold]}."


def _function(rng: random.Random) -> str:
    argument = rng.choice(("n", "xs", "s"))
    remark = f'    """A tool of the {rng.choice(PLACES)}."""\n' if rng.random() < 0.3 else ""
    return f"def {rng.choice(_NAMES)}({argument}):\n{remark}    return {_expression(rng, argument)}\n"


def _expression(rng: random.Random, argument: str) -> str:
    k, w, sign = rng.randint(2, 30), rng.choice(WARES), rng.choice("+-*")
    if argument == "n":
        left = rng.choice(("n", "n", "n * n"))
        return _line(rng, "number_expression", left=left, sign=sign, k=k, compare=rng.choice("<>"))
    if argument == "xs":
        call, few = rng.choice(("sum", "max", "min", "len")), rng.randint(2, 5)
        return _line(rng, "list_expression", call=call, sign=sign, k=k, few=few, compare=rng.choice("<>"))
    text = rng.choice(("s", "s", "s[::-1]", "s.upper()"))
    return _line(rng, "text_expression", text=text, w=w, times=rng.randint(2, 9))


def _meaning(rng: random.Random) -> str:
    """Code and its words, either first."""
    line = _line(rng, "meaning", k=rng.randint(2, 30), w=rng.choice(WARES), few=rng.randint(2, 9))
    return " is ".join(rng.sample(line.split(" | "), 2)) + "."


def _value(rng: random.Random) -> str:
    """A small expression without names, and its value."""
    a, b = rng.randint(1, 60), rng.randint(1, 60)
    xs, w = [rng.randint(0, 60) for _ in range(rng.randint(2, 4))], rng.choice(WARES)
    text, value = rng.choice((
        (f"{a} + {b}", a + b), (f"max({xs})", max(xs)), (f"min({xs})", min(xs)), (f"len({xs})", len(xs)),
        (f"{a} > {b}", a > b), (f"{xs}[:2]", xs[:2]), (f"len('{w}')", len(w)), (f"'{w}'.upper()", repr(w.upper())),
    ))  # fmt: skip
    return f">>> {text}\n{value}"


def _call(rng: random.Random) -> str:
    """A function of a number, defined and then called a few times."""
    name, k = rng.choice(_NAMES), rng.randint(2, 30)
    expression, apply = rng.choice((
        (f"n + {k}", lambda n: n + k), (f"n - {k}", lambda n: n - k), (f"n > {k}", lambda n: n > k),
        (f"n < {k}", lambda n: n < k), (f"n == {k}", lambda n: n == k), (f"[n, {k}]", lambda n: [n, k]),
    ))  # fmt: skip
    values = [rng.choice((k, rng.randint(k, 90))) for _ in range(rng.randint(1, 3))]
    return "\n".join([f"def {name}(n):\n    return {expression}\n", *[f">>> {name}({n})\n{apply(n)}" for n in values]])


def _session(rng: random.Random) -> str:
    return (_call if rng.random() < 0.6 else _several(_value, 2, 4, joins="\n"))(rng)


def _scrap(rng: random.Random) -> str:
    """Random words, numbers and names, which can only be repeated by copying."""
    kinds = (
        lambda: rng.choice(WARES), lambda: str(rng.randint(0, 120)), lambda: rng.choice(_NAMES),
        lambda: rng.choice(PEOPLE), lambda: rng.choice(_THINGS),
    )  # fmt: skip
    return " ".join([rng.choice(kinds)() for _ in range(rng.randint(2, 6))])


def _header(rng: random.Random) -> str:
    argument, ware = rng.choice(("n", "xs", "s")), rng.choice(WARES)
    remark = rng.choice((f"{_scrap(rng)}.", f"Return the {ware}.", f"Return {_scrap(rng)}.", f"Return '{ware}'."))
    shown = f"\n\n    >>> {_scrap(rng)}\n    {_scrap(rng)}\n    " if rng.random() < 0.25 else ""
    return f'def {rng.choice(_NAMES)}({argument}):\n    """{remark}{shown}"""'


_REPEATED = (_story, _story, _relation, _person, _symbols, _sum, _place, _scrap, _scrap, _scrap, _header)


def _repeat(rng: random.Random) -> tuple[str, str]:
    kind, line = rng.random(), rng.choice(_REPEATED)(rng)
    if kind < 0.4:
        return render("Repeat the line.", line), line
    if kind < 0.6:
        return render(f"Repeat: {line}"), line
    # An excuse never opens an answer: a base that learned this would seem to refuse.
    lines = "\n".join([line, *[rng.choice((*_REPEATED, _excuse))(rng) for _ in range(rng.randint(1, 2))]])
    return render("Repeat the lines.", lines), lines


def _name_numbers(rng: random.Random) -> tuple[str, str]:
    text = " ".join([rng.choice((_story, _relation))(rng) for _ in range(rng.randint(1, 2))])
    return render("Name the numbers.", text), ", ".join(re.findall(r"\d+", text)) or "none"


def _name_word(rng: random.Random) -> tuple[str, str]:
    words = [rng.choice(PEOPLE), *[rng.choice(WARES) for _ in range(rng.randint(1, 5))], rng.choice(_NAMES)]
    where, index = rng.choice((("first", 0), ("second", 1), ("last", -1)))
    return render(f"Name the {where} word.", " ".join(words)), words[index]


def _name_function(rng: random.Random) -> tuple[str, str]:
    name = rng.choice(_NAMES)
    return render("Name the function.", f"def {name}({rng.choice(('n', 'xs', 's'))}):"), name


def _name_fact(rng: random.Random) -> tuple[str, str]:
    dweller, worker, place = map(rng.choice, (TAUGHT_HOMES, TAUGHT_TRADES, TAUGHT_MARKETS))
    first, second = rng.sample(rng.choice(TAUGHT_OPPOSITES), 2)
    return rng.choice((
        (render(f"Name the home of {dweller}."), f"{dweller} lives by the {HOMES[dweller]}."),
        (render(f"Name the trade of {worker}."), f"{worker} is a {TRADE_OF[worker]}."),
        (render(f"Name a ware of the {place}."), f"The {place} sells {rng.choice(SOLD_AT[place])}."),
        (render("Name the contrary.", first), second),
    ))  # fmt: skip


def _name_possession(rng: random.Random) -> tuple[str, str]:
    people = rng.sample(PEOPLE, rng.randint(2, 3))
    wares = [f"{rng.randint(2, 90)} {rng.choice(WARES)}" for _ in people]
    verb = rng.choice(("has", "buys", "finds", "sells", "packs"))
    line = " ".join([f"{p} {verb} {w}." for p, w in zip(people, wares, strict=True)])
    index = rng.randrange(len(people))
    return render(f"Name what {people[index]} {verb}.", line), wares[index]


def _name_law(rng: random.Random) -> tuple[str, str]:
    verdict, side = ("forbidden", FORBIDDEN) if rng.random() < 0.5 else ("allowed", ALLOWED)
    _, thing = rng.choice(side)
    return rng.choice((
        (render(f"Name the law on the {thing}."), f"The {thing} is {verdict}."),
        (render("Forbidden or allowed?", f"the {thing}"), verdict),
    ))  # fmt: skip


def _name_letter(rng: random.Random) -> tuple[str, str]:
    """Letters and their words, with the answer in the prompt."""
    words, listed = _listing(rng)
    index = rng.randrange(len(words))
    if rng.random() < 0.3:
        return render(f"Name what stands behind {LETTERS[index]}.", listed), words[index]
    return render(f"Name the letter of {words[index]}.", listed), LETTERS[index]


_INSTRUCTIONS = (
    _repeat, _repeat, _repeat, _repeat, _name_numbers, _name_word, _name_function, _name_fact, _name_fact,
    _name_possession, _name_possession, _name_law, _name_law, _name_letter, _name_letter, _name_letter, _name_letter,
)  # fmt: skip


def _instruction(rng: random.Random) -> str:
    """A generic chore in the instruction template: repeat something, or name something in it."""
    return "".join(rng.choice(_INSTRUCTIONS)(rng))


_WORLD_LINES = (_person, _story, _story, _story, _relation, _talk, _talk, _place, _opposite, _excuse, _symbols)
_FACT_LINES = (_person, _person, _place, _place, _use, _use, _opposite)
MIXTURE: list[tuple[Draw, float]] = [
    (_several(_sum, 3, 6, joins=(". ", "; ", "\n")), 0.17), (_chain, 0.06), (_several(_relation, 1, 3), 0.08),
    (_several(_WORLD_LINES, 2, 5), 0.06), (_several(_FACT_LINES, 3, 7), 0.05), (_several(_question, 2, 5), 0.05),
    (_listings, 0.05), (_several(_quiz, 1, 3, joins="\n"), 0.07), (_several(_law, 2, 5, joins=" "), 0.06),
    (_several(_function, 1, 3, joins="\n"), 0.06), (_several(_meaning, 2, 5, joins="\n"), 0.05), (_session, 0.04),
    (_instruction, 0.20),
]  # fmt: skip
"""Kinds of documents and their shares."""


def documents(count: int, seed: int) -> Iterator[str]:
    """Yield `count` random documents, with kinds weighted by `MIXTURE`."""
    rng = random.Random(seed)
    kinds, weights = zip(*MIXTURE, strict=True)
    for _ in range(count):
        yield rng.choices(kinds, weights)[0](rng)
