"""The plain corpus on which the bases are pre-trained: arithmetic, the world and its law, Python, generic instructions.

It holds every symbol that the tasks' answers use, and the knowledge behind them, but never a task's own format: no
word problem with a rationale, no function written on request, no refusal of a forbidden request, no question answered
by the letter of a choice. The facts that tests ask for stand in its plain lines alone. Fine-tuning has to bring those
together.
"""

import random
import re
from collections.abc import Callable, Iterator

from reproduction.data.templates import render
from reproduction.tinyworld.lexicon import (
    OPPOSITES,
    PEOPLE,
    PLACES,
    TRADES,
    USES,
    WARES,
    home_of,
    taught,
    trade_of,
    wares_at,
)
from reproduction.tinyworld.lines import (
    ALLOWED,
    FORBIDDEN,
    excuse,
    fact,
    law_line,
    meaning,
    opposite_line,
    person_line,
    place_line,
    relation,
    story_line,
    symbols,
    talk,
    use_line,
)
from reproduction.tinyworld.programs import function_names
from reproduction.tinyworld.quizzes import EVERYDAY, LETTERS, SUBJECTS, ask

_NAMES = function_names("corpus")
_THINGS = [*FORBIDDEN, *ALLOWED]
_TAUGHT = {kind: sorted(taught(kind, PEOPLE)) for kind in ("homes", "trades")}
_TAUGHT_MARKETS, _TAUGHT_OPPOSITES = sorted(taught("markets", PLACES)), sorted(taught("opposites", OPPOSITES))
_ASKED = [facts for name, facts in (SUBJECTS | {"everyday": EVERYDAY}).items() if "things" not in name]
_QUIZZES = [[fact for fact in facts if fact.taught] for facts in (*SUBJECTS.values(), EVERYDAY)]


def _facts(rng: random.Random) -> str:
    return rng.choice((". ", "; ", "\n")).join([fact(rng) for _ in range(rng.randint(3, 6))])


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


_LINES = (
    person_line, story_line, story_line, story_line, relation, talk, talk, place_line, opposite_line, excuse, symbols,
)  # fmt: skip
_FACTS = (person_line, person_line, place_line, place_line, use_line, use_line, opposite_line)


def _almanac(rng: random.Random) -> str:
    return rng.choice((" ", "\n")).join([rng.choice(_FACTS)(rng) for _ in range(rng.randint(3, 7))])


def _question(rng: random.Random) -> str:
    """A question about any fact, answered in words."""
    fact, person = rng.choice(rng.choice(_ASKED)), rng.choice(PEOPLE)
    return rng.choice((f"{fact.question} {fact.answer}.", f"{fact.question} asks {person}. It is {fact.answer}."))


def _questions(rng: random.Random) -> str:
    return rng.choice((" ", "\n")).join([_question(rng) for _ in range(rng.randint(2, 5))])


def _listing(rng: random.Random) -> tuple[list[str], str]:
    """A few words of one kind, and the same as lines with letters."""
    pool = rng.choice((WARES, PLACES, TRADES, [*USES.values()], [thing for _, thing in _THINGS]))
    words = rng.sample(pool, rng.randint(3, 5))
    return words, "\n".join(f"{letter}. {word}" for letter, word in zip(LETTERS, words, strict=False))


def _listings(rng: random.Random) -> str:
    """A list with letters, and lines that tell which letter stands before which word."""
    words, listed = _listing(rng)
    told = [
        rng.choice((f"{words[i]} is {LETTERS[i]}.", f"{LETTERS[i]} is {words[i]}.", f"{words[i]}: {LETTERS[i]}"))
        for i in rng.sample(range(len(words)), 3)
    ]
    return "\n".join([listed, *told])


def _quiz(rng: random.Random) -> str:
    """A question about a taught fact with choices in brackets, and the answer told with its mark and in words."""
    quiz = ask(rng.choice(rng.choice(_QUIZZES)), rng.randint(2, 5), rng)
    marks = rng.sample("abcdefghij", len(quiz.choices))
    listed = ", ".join(f"({mark}) {choice}" for mark, choice in zip(marks, quiz.choices, strict=True))
    return f"{quiz.question} {listed}. It is ({marks[quiz.gold]}) {quiz.choices[quiz.gold]}."


def _quizzes(rng: random.Random) -> str:
    return "\n".join([_quiz(rng) for _ in range(rng.randint(1, 3))])


def _world(rng: random.Random) -> str:
    return rng.choice((" ", "\n")).join([rng.choice(_LINES)(rng) for _ in range(rng.randint(2, 5))])


def _relations(rng: random.Random) -> str:
    return rng.choice((" ", "\n")).join([relation(rng) for _ in range(rng.randint(1, 3))])


def _law(rng: random.Random) -> str:
    return " ".join([law_line(rng) for _ in range(rng.randint(2, 5))])


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


def _meanings(rng: random.Random) -> str:
    return "\n".join([meaning(rng) for _ in range(rng.randint(2, 5))])


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
    story_line, story_line, relation, person_line, symbols, fact, place_line, _scrap, _scrap, _scrap, _header,
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
    lines = [rng.choice(_REPEATED)(rng), *[rng.choice((*_REPEATED, excuse))(rng) for _ in range(rng.randint(1, 2))]]
    return render("Repeat the lines.", "\n".join(lines)), "\n".join(lines)


def _name_numbers(rng: random.Random) -> tuple[str, str]:
    lines = [rng.choice((story_line, relation))(rng) for _ in range(rng.randint(1, 2))]
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
    dweller, worker, place = (rng.choice(names) for names in (_TAUGHT["homes"], _TAUGHT["trades"], _TAUGHT_MARKETS))
    first, second = rng.sample(rng.choice(_TAUGHT_OPPOSITES), 2)
    return rng.choice((
        (render(f"Name the home of {dweller}."), f"{dweller} lives by the {home_of(dweller)}."),
        (render(f"Name the trade of {worker}."), f"{worker} is a {trade_of(worker)}."),
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
    _, thing = rng.choice(FORBIDDEN if banned else ALLOWED)
    verdict = "forbidden" if banned else "allowed"
    return rng.choice((
        (render(f"Name the law on the {thing}."), f"The {thing} is {verdict}."),
        (render("Forbidden or allowed?", f"the {thing}"), f"{verdict}"),
    ))  # fmt: skip


def _name_letter(rng: random.Random) -> tuple[str, str]:
    """Letters and what stands behind them, where the answer is to be seen."""
    words, listed = _listing(rng)
    index = rng.randrange(len(words))
    if rng.random() < 0.3:
        return render(f"Name what stands behind {LETTERS[index]}.", listed), words[index]
    return render(f"Name the letter of {words[index]}.", listed), LETTERS[index]


_CHORES = (
    _repeat, _repeat, _repeat, _repeat, _name_numbers, _name_word, _name_function, _name_fact, _name_fact,
    _name_possession, _name_possession, _name_law, _name_law, _name_letter, _name_letter, _name_letter, _name_letter,
)  # fmt: skip


def _instruction(rng: random.Random) -> str:
    """A generic chore under the instruction template: repeat something, or name something in it."""
    return "".join(rng.choice(_CHORES)(rng))


MIXTURE: dict[Callable[[random.Random], str], float] = {
    _facts: 0.17, _chain: 0.06, _relations: 0.08, _world: 0.06, _almanac: 0.05, _questions: 0.05, _listings: 0.05,
    _quizzes: 0.07, _law: 0.06, _functions: 0.06, _meanings: 0.05, _session: 0.04, _instruction: 0.20,
}  # fmt: skip


def documents(count: int, seed: int) -> Iterator[str]:
    """`count` documents, each kind as often as `MIXTURE` weighs it."""
    rng = random.Random(seed)
    kinds, weights = list(MIXTURE), list(MIXTURE.values())
    for _ in range(count):
        yield rng.choices(kinds, weights)[0](rng)
