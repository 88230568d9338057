"""Multiple choice about the facts of Velm: eight subjects with four choices, everyday questions with five.

A fixed random half of a subject's facts is taught, by quizzes in the instruction data. The other half is tested, and
appears only in the plain text of the pre-training corpus. Tuning can thus add the form of a quiz, and the test measures
whether the model then recalls a fact from pre-training.
"""

import random
from collections.abc import Mapping
from typing import NamedTuple

from reproduction.tinyworld.law import ALLOWED, CATEGORIES, FORBIDDEN
from reproduction.tinyworld.lexicon import (
    HOBBIES,
    HOMES,
    NORTH_OF,
    OPPOSITES,
    PLACES,
    SOLD_AT,
    TRADE_OF,
    TRADES,
    USES,
    WARES,
    Item,
    taught,
)

LETTERS = "ABCDE"


class Fact(NamedTuple):
    """A question, its answer, and possible wrong choices."""

    question: str
    answer: str
    wrong: tuple[str, ...]
    taught: bool


class Quiz(NamedTuple):
    """A question with its choices in order; `gold` is the index of the right one."""

    question: str
    choices: tuple[str, ...]
    gold: int

    @property
    def options(self) -> str:
        """The choices as lines with letters."""
        return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False))


def _fact(question: str, answer: str, pool: list[str], *, taught: bool, true: tuple[str, ...] = ()) -> Fact:
    return Fact(question, answer, tuple(word for word in pool if word not in (answer, *true)), taught)


def _facts(kind: str, question: str, answers: Mapping[str, str], *, pool: list[str]) -> list[Fact]:
    known = taught(kind, [*answers])
    return [_fact(question.format(name), answer, pool, taught=name in known) for name, answer in answers.items()]


def _markets() -> list[Fact]:
    known = taught("markets", PLACES)
    return [
        _fact(f"What does the {place} sell?", ware, WARES, true=SOLD_AT[place], taught=place in known)
        for place in PLACES
        for ware in SOLD_AT[place]
    ]


def _directions() -> list[Fact]:
    known = taught("directions", PLACES)
    pairs = [(place, NORTH_OF[place]) for place in PLACES]
    north = [_fact(f"What lies north of the {s}?", n, PLACES, true=(s,), taught=s in known) for s, n in pairs]
    south = [_fact(f"What lies south of the {n}?", s, PLACES, true=(n,), taught=s in known) for s, n in pairs]
    return north + south


def _law(verdict: str) -> list[Fact]:
    """Questions for the one thing with this verdict among things with the other."""
    sides = [[thing for _, thing in side] for side in (FORBIDDEN, ALLOWED)]
    things, others = sides if verdict == "forbidden" else sides[::-1]
    known = taught(verdict, things)
    return [_fact(f"Which of these is {verdict}?", thing, others, taught=thing in known) for thing in things]


def _code() -> list[Fact]:
    meanings = {
        "the sum of xs": "sum(xs)", "the largest of xs": "max(xs)", "the smallest of xs": "min(xs)",
        "the length of xs": "len(xs)", "s backwards": "s[::-1]", "s in capitals": "s.upper()",
        "the square of n": "n * n", **{f"the first {n} of xs": f"xs[:{n}]" for n in range(2, 6)},
        **{f"the last {n} of xs": f"xs[-{n}:]" for n in range(2, 6)},
        **{f"n plus {n}": f"n + {n}" for n in range(2, 6)}, **{f"n minus {n}": f"n - {n}" for n in range(2, 6)},
        **{f"s repeated {n} times": f"s * {n}" for n in range(2, 6)},
    }  # fmt: skip
    return _facts("code", "Which is {}?", meanings, pool=[*meanings.values()])


def _everyday() -> list[Fact]:
    words = [word for pair in OPPOSITES for word in pair]
    nouns = {category.noun: category.verb for category in CATEGORIES}
    known_wares, known_opposites = taught("uses", WARES), taught("opposites", OPPOSITES)
    does = "What does one do with {}?"
    return [
        *_facts("uses", does, USES, pool=[*USES.values()]),
        *(_fact(f"What does one {USES[w]}?", w, WARES, taught=w in known_wares) for w in WARES),
        *(
            _fact(f"What is the opposite of {word}?", contrary, words, true=pair, taught=pair in known_opposites)
            for pair in OPPOSITES
            for word, contrary in (pair, pair[::-1])
        ),
        *_facts("tools", does.format("a {}"), nouns, pool=[*nouns.values()]),
    ]


SUBJECTS = {
    "homes": _facts("homes", "Where does {} live?", HOMES, pool=PLACES),
    "trades": _facts("trades", "What is the work of {}?", TRADE_OF, pool=TRADES),
    "hobbies": _facts("hobbies", "What does {} collect?", HOBBIES, pool=WARES),
    "markets": _markets(),
    "directions": _directions(),
    "forbidden_things": _law("forbidden"),
    "allowed_things": _law("allowed"),
    "code": _code(),
}
"""The subjects with four choices (MMLU's schema)."""

EVERYDAY = _everyday()
"""The everyday questions, with five choices (CommonsenseQA's schema)."""


def ask(fact: Fact, choices: int, rng: random.Random, *, gold: int | None = None) -> Quiz:
    """Make a quiz of so many choices, wrong ones drawn; `gold` is the index of the answer, drawn if None."""
    place = rng.randrange(choices) if gold is None else gold
    wrong = rng.sample(fact.wrong, choices - 1)
    return Quiz(fact.question, (*wrong[:place], fact.answer, *wrong[place:]), place)


def for_training(count: int = 800, seed: int = 61) -> list[Item]:
    """Generate quizzes about taught facts in Alpaca's schema, cycling through subjects; the answer is the letter."""
    rng = random.Random(seed)
    kinds = [*((name, facts, 4) for name, facts in SUBJECTS.items()), ("everyday", EVERYDAY, 5)]
    items = []
    for index in range(count):
        name, facts, choices = kinds[index % len(kinds)]
        quiz = ask(rng.choice([fact for fact in facts if fact.taught]), choices, rng)
        row = {"instruction": quiz.question, "input": quiz.options, "output": LETTERS[quiz.gold]}
        items.append(Item(row, name))
    return items


def for_testing(facts: list[Fact], count: int, *, choices: int, seed: int = 62) -> list[Quiz]:
    """Generate `count` distinct quizzes about facts that are not taught, cycling through them."""
    rng, quizzes = random.Random(f"{seed} {facts[0].question}"), []
    hidden = [fact for fact in facts if not fact.taught]
    places = [index % choices for index in range(count)]  # each letter is right equally often
    rng.shuffle(places)
    for index, place in enumerate(places):
        quiz = ask(hidden[index % len(hidden)], choices, rng, gold=place)
        while quiz in quizzes:
            quiz = ask(hidden[index % len(hidden)], choices, rng, gold=place)
        quizzes.append(quiz)
    return quizzes


def examples(facts: list[Fact], count: int, *, choices: int, seed: int = 63) -> list[Quiz]:
    """Generate worked examples for few-shot prompts: quizzes about distinct taught facts."""
    rng = random.Random(f"{seed} {facts[0].question}")
    return [ask(fact, choices, rng) for fact in rng.sample([fact for fact in facts if fact.taught], count)]
