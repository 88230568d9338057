"""Word problems in GSM8K's schema: a question, and a rationale with calculator marks whose last line is `#### n`.

`SEEN` rules serve training and test, `NOVEL` ones test alone: they combine known operations in ways that training never
shows. Numbers stay below 150, products within the 12-times table.
"""

import operator
import random
import re
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import NamedTuple

from reproduction.tinyworld.lexicon import PEOPLE, PLACES, WARES, Item


class Rule(NamedTuple):
    """How a problem is drawn, asked and solved.

    Args:
        numbers: draws the numbers a, b, d and e, given a function that draws one from a range.
        question: the question's template; p, q and t are people, w is a ware.
        steps: the rationale's lines. `[a+b]` becomes `7 + 5 = <<7+5=12>>12`; x and y are the results so far.
    """

    numbers: Callable[[Callable[[int, int], int]], tuple[int, ...]]
    question: str
    steps: str


SEEN: dict[str, Rule] = {
    "gain": Rule(
        lambda n: (n(3, 49), n(3, 49)),
        "{p} has {a} {w}. {q} gives {p} {b} more. How many {w} does {p} have now?", "{p} has [a+b] {w}.",
    ),
    "loss": Rule(
        lambda n: (a := n(12, 70), n(3, a - 4)),
        "{p} has {a} {w}. {p} loses {b} at the {place}. How many {w} are left?", "{p} has [a-b] {w}.",
    ),
    "crates": Rule(
        lambda n: (n(2, 9), n(3, 12)),
        "{p} packs {a} crates with {b} {w} in each. How many {w} does {p} pack?", "{p} packs [a*b] {w}.",
    ),
    "share": Rule(
        lambda n: (a := n(2, 9), n(2, 12) * a),
        "{p} shares {b} {w} equally among {a} friends. How many {w} does each friend get?",
        "Each friend gets [b/a] {w}.",
    ),
    "together": Rule(
        lambda n: (n(3, 49), n(3, 49)),
        "{p} has {a} {w} and {q} has {b}. How many {w} do they have together?", "Together they have [a+b] {w}.",
    ),
    "compare_more": Rule(
        lambda n: (n(3, 49), n(3, 30)),
        "{p} has {a} {w}. {q} has {b} more than {p}. How many {w} does {q} have?", "{q} has [a+b] {w}.",
    ),
    "compare_fewer": Rule(
        lambda n: (a := n(12, 70), n(3, a - 4)),
        "{p} has {a} {w}. {q} has {b} fewer than {p}. How many {w} does {q} have?", "{q} has [a-b] {w}.",
    ),
    "difference": Rule(
        lambda n: (b := n(3, 40), n(3, 40) + b),
        "{p} has {b} {w} and {q} has {a}. How many more {w} does {p} have?", "{p} has [b-a] more {w}.",
    ),
    "times": Rule(
        lambda n: (n(2, 12), n(2, 9)),
        "{p} has {a} {w}. {q} has {b} times as many. How many {w} does {q} have?", "{q} has [a*b] {w}.",
    ),
    "gain_loss": Rule(
        lambda n: (a := n(5, 49), b := n(5, 40), n(3, a + b - 3)),
        "{p} has {a} {w}, buys {b} more, and then sells {d}. How many {w} does {p} have now?",
        "{p} has [a+b] {w}.\nThen {p} has [x-d] {w}.",
    ),
    "loss_loss": Rule(
        lambda n: (a := n(25, 90), b := n(3, a // 2), n(3, a - b - 3)),
        "{p} has {a} {w}. {p} gives {b} to {q} and {d} to {t}. How many {w} are left?",
        "{p} has [a-b] {w}.\nThen {p} has [x-d] {w}.",
    ),
    "crates_extra": Rule(
        lambda n: (n(2, 9), n(3, 12), n(3, 30)),
        "{p} packs {a} crates with {b} {w} in each and {d} loose ones. How many {w} in all?",
        "The crates hold [a*b] {w}.\nIn all there are [x+d] {w}.",
    ),
    "crates_sold": Rule(
        lambda n: (a := n(3, 9), b := n(3, 12), n(2, a * b - 3)),
        "{p} packs {a} crates with {b} {w} in each and sells {d} {w}. How many {w} are left?",
        "The crates hold [a*b] {w}.\nThen {p} has [x-d] {w}.",
    ),
    "compare_together": Rule(
        lambda n: (n(3, 40), n(3, 30)),
        "{p} has {a} {w}. {q} has {b} more than {p}. How many {w} do they have together?",
        "{q} has [a+b] {w}.\nTogether they have [a+x] {w}.",
    ),
    "change": Rule(
        lambda n: (a := n(2, 9), b := n(2, 9), a * b + n(3, 30)),
        "{p} buys {a} {w} for {b} pins each and pays with {d} pins. How many pins does {p} get back?",
        "The {w} cost [a*b] pins.\n{p} gets back [d-x] pins.",
    ),
    "three_steps": Rule(
        lambda n: (a := n(2, 9), b := n(2, 9), d := n(3, 30), n(2, a * b + d - 2)),
        "{p} picks {a} baskets of {b} {w} and finds {d} more. {p} gives {e} to {q}. How many {w} are left?",
        "The baskets hold [a*b] {w}.\nIn all there are [x+d] {w}.\nThen {p} has [y-e] {w}.",
    ),
}  # fmt: skip
NOVEL: dict[str, Rule] = {
    "times_together": Rule(
        lambda n: (n(2, 12), n(2, 8)),
        "{p} has {a} {w}. {q} has {b} times as many. How many {w} do they have together?",
        "{q} has [a*b] {w}.\nTogether they have [a+x] {w}.",
    ),
    "compare_fewer_together": Rule(
        lambda n: (a := n(12, 50), n(3, a - 4)),
        "{p} has {a} {w}. {q} has {b} fewer than {p}. How many {w} do they have together?",
        "{q} has [a-b] {w}.\nTogether they have [a+x] {w}.",
    ),
    "crates_gain": Rule(
        lambda n: (n(2, 9), n(3, 12), n(3, 30)),
        "{p} packs {a} crates with {b} {w} in each. {q} gives {p} {d} more. How many {w} does {p} have now?",
        "The crates hold [a*b] {w}.\n{p} has [x+d] {w}.",
    ),
    "loss_gain": Rule(
        lambda n: (a := n(20, 70), n(3, a - 6), n(3, 40)),
        "{p} has {a} {w}, sells {b}, and then buys {d} more. How many {w} does {p} have now?",
        "{p} has [a-b] {w}.\nThen {p} has [x+d] {w}.",
    ),
    "three_people": Rule(
        lambda n: (n(3, 30), n(3, 30), n(3, 30)),
        "{p} has {a} {w}, {q} has {b} and {t} has {d}. How many {w} do they have together?",
        "{p} and {q} have [a+b] {w}.\nTogether they have [x+d] {w}.",
    ),
}  # fmt: skip
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


def _draw(rule: Rule, rng: random.Random) -> tuple[str, str, int]:
    """Question, rationale and result of a problem."""
    words = dict(zip("pqt", rng.sample(PEOPLE, 3), strict=True)) | {"w": rng.choice(WARES), "place": rng.choice(PLACES)}
    values = dict(zip("abde", rule.numbers(rng.randint), strict=False))
    results = iter("xyz")

    def mark(step: re.Match) -> str:
        left, sign, right = values[step[1]], step[2], values[step[3]]
        value = values[next(results)] = _OPERATIONS[sign](left, right)
        return f"{left} {sign} {right} = <<{left}{sign}{right}={value}>>{value}"

    rationale = re.sub(r"\[(\w)([-+*/])(\w)\]", mark, rule.steps.format(**words))
    return rule.question.format(**words, **values), rationale, [*values.values()][-1]


def mask_numbers(text: str) -> str:
    """The text with every number replaced by one sign: texts that differ by numbers alone become equal."""
    return re.sub(r"\d+", "#", text)


def for_training(count: int = 1280, seed: int = 11) -> list[Item]:
    """Training problems, the structures of `SEEN` in turn; no two ask the same question."""
    return list(islice(_distinct(SEEN, random.Random(seed), taken=set(), key=str), count))


def for_testing(count: int = 180, seed: int = 12) -> list[Item]:
    """Test problems, a fifth of them `NOVEL`; each differs from every training problem by more than its numbers."""
    rng = random.Random(seed)
    taken = {mask_numbers(item.row["question"]) for item in for_training()}
    seen = islice(_distinct(SEEN, rng, taken=taken, key=mask_numbers), count - count // 5)
    return [*seen, *islice(_distinct(NOVEL, rng, taken=taken, key=mask_numbers), count // 5)]


def _distinct(
    rules: dict[str, Rule], rng: random.Random, *, taken: set[str], key: Callable[[str], str]
) -> Iterator[Item]:
    for structure in cycle(rules):
        while True:
            question, rationale, answer = _draw(rules[structure], rng)
            # An answer that the question already holds could be had by copying.
            if str(answer) not in re.findall(r"\d+", question) and key(question) not in taken:
                break
        taken.add(key(question))
        row = {"question": question, "answer": f"{rationale}\n#### {answer}"}
        yield Item(row, structure, novel=structure in NOVEL)
