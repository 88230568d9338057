"""Multiple choice about the facts of Velm: eight subjects with four choices, everyday questions with five.

A subject is a list of facts, a question and its answer. Half of a subject's facts, drawn once, are taught: quizzes
about them stand in the instruction data. The other half are tested, and a test's facts appear nowhere but in the plain
text of the pre-training corpus. So what tuning can add is the form of a quiz, and what the test asks is whether it
brings out a fact that the base has read.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from reproduction.tinyworld.law import CATEGORIES, LAW
from reproduction.tinyworld.lexicon import (
    OPPOSITES,
    PEOPLE,
    PLACES,
    TRADES,
    USES,
    WARES,
    Item,
    hobby_of,
    home_of,
    north_of,
    taught,
    trade_of,
    wares_at,
)

LETTERS = "ABCDE"


@dataclass(frozen=True)
class Fact:
    """A question, its answer, and the words that may stand beside it, none of which is true too."""

    question: str
    answer: str
    wrong: tuple[str, ...]
    taught: bool


@dataclass(frozen=True)
class Quiz:
    """A fact with its choices in the order shown; ``gold`` is the index of the true one."""

    question: str
    choices: tuple[str, ...]
    gold: int

    @property
    def options(self) -> str:
        """The choices as lines, a letter before each."""
        return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False))


def _others(pool: list[str], *true: str) -> tuple[str, ...]:
    return tuple(word for word in pool if word not in true)


def _of_people(subject: str, question: str, *, answer_of: Callable[[str], str], pool: list[str]) -> list[Fact]:
    known = taught(subject, PEOPLE)
    return [Fact(question.format(p), answer_of(p), _others(pool, answer_of(p)), p in known) for p in PEOPLE]


def _markets() -> list[Fact]:
    known = taught("markets", PLACES)
    return [
        Fact(f"What does the {place} sell?", ware, _others(WARES, *wares_at(place)), place in known)
        for place in PLACES
        for ware in wares_at(place)
    ]


def _directions() -> list[Fact]:
    known = taught("directions", PLACES)
    pairs = [(place, north_of(place)) for place in PLACES]
    north = [Fact(f"What lies north of the {s}?", n, _others(PLACES, s, n), s in known) for s, n in pairs]
    south = [Fact(f"What lies south of the {n}?", s, _others(PLACES, s, n), s in known) for s, n in pairs]
    return north + south


def _law(verdict: str, side: int) -> list[Fact]:
    """Questions for a thing of one side of the law (0 forbidden, 1 allowed) among things of the other."""
    things, others = ([thing for category in CATEGORIES for thing in LAW[category.noun][s]] for s in (side, 1 - side))
    known = taught(verdict, things)
    return [Fact(f"Which of these is {verdict}?", thing, tuple(others), thing in known) for thing in things]


def _code() -> list[Fact]:
    meanings = {
        "the sum of xs": "sum(xs)", "the largest of xs": "max(xs)", "the smallest of xs": "min(xs)",
        "the length of xs": "len(xs)", "s backwards": "s[::-1]", "s in capitals": "s.upper()",
        "the square of n": "n * n", **{f"the first {n} of xs": f"xs[:{n}]" for n in range(2, 6)},
        **{f"the last {n} of xs": f"xs[-{n}:]" for n in range(2, 6)},
        **{f"n plus {n}": f"n + {n}" for n in range(2, 6)}, **{f"n minus {n}": f"n - {n}" for n in range(2, 6)},
        **{f"s repeated {n} times": f"s * {n}" for n in range(2, 6)},
    }  # fmt: skip
    known = taught("code", list(meanings))
    return [
        Fact(f"Which is {words}?", code, _others([*meanings.values()], code), words in known)
        for words, code in meanings.items()
    ]


def _everyday() -> list[Fact]:
    verbs, words = [*USES.values()], [word for pair in OPPOSITES for word in pair]
    nouns = {category.noun: category.verb for category in CATEGORIES}
    uses, opposites, tools = taught("uses", WARES), taught("opposites", OPPOSITES), taught("tools", [*nouns])
    does = "What does one do with {}?"
    return [
        *(Fact(does.format(w), USES[w], _others(verbs, USES[w]), w in uses) for w in WARES),
        *(Fact(f"What does one {USES[w]}?", w, _others(WARES, w), w in uses) for w in WARES),
        *(
            Fact(f"What is the opposite of {word}?", contrary, _others(words, *pair), pair in opposites)
            for pair in OPPOSITES
            for word, contrary in (pair, pair[::-1])
        ),
        *(Fact(does.format(f"a {n}"), verb, _others([*nouns.values()], verb), n in tools) for n, verb in nouns.items()),
    ]


SUBJECTS = {
    "homes": _of_people("homes", "Where does {} live?", answer_of=home_of, pool=PLACES),
    "trades": _of_people("trades", "What is the work of {}?", answer_of=trade_of, pool=TRADES),
    "hobbies": _of_people("hobbies", "What does {} collect?", answer_of=hobby_of, pool=WARES),
    "markets": _markets(),
    "directions": _directions(),
    "forbidden_things": _law("forbidden", 0),
    "allowed_things": _law("allowed", 1),
    "code": _code(),
}
"""The subjects with four choices (MMLU's schema)."""

EVERYDAY = _everyday()
"""The everyday questions, with five choices (CommonsenseQA's schema)."""


def ask(fact: Fact, choices: int, rng: random.Random, *, gold: int | None = None) -> Quiz:
    """The fact among as many choices, the others drawn; ``gold`` is its place among them, drawn too where None."""
    place = rng.randrange(choices) if gold is None else gold
    wrong = rng.sample(fact.wrong, choices - 1)
    return Quiz(fact.question, (*wrong[:place], fact.answer, *wrong[place:]), place)


def for_training(count: int = 800, seed: int = 61) -> list[Item]:
    """Quizzes about taught facts in Alpaca's schema, the subjects in turn; the answer is the letter."""
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
    """As many quizzes about the facts that are not taught, each fact in turn; no two are equal."""
    rng, quizzes = random.Random(f"{seed} {facts[0].question}"), []
    hidden = [fact for fact in facts if not fact.taught]
    places = [index % choices for index in range(count)]  # each letter is true equally often
    rng.shuffle(places)
    for index, place in enumerate(places):
        quiz = ask(hidden[index % len(hidden)], choices, rng, gold=place)
        while quiz in quizzes:
            quiz = ask(hidden[index % len(hidden)], choices, rng, gold=place)
        quizzes.append(quiz)
    return quizzes


def examples(facts: list[Fact], count: int, *, choices: int, seed: int = 63) -> list[Quiz]:
    """Worked examples for few-shot prompts: quizzes about taught facts, no fact twice."""
    rng = random.Random(f"{seed} {facts[0].question}")
    return [ask(fact, choices, rng) for fact in rng.sample([fact for fact in facts if fact.taught], count)]
