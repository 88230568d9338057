"""Word problems in GSM8K's schema: a question, and a rationale with calculator marks whose last line is `#### n`.

A structure is a rule that draws its numbers, asks, and reasons. `SEEN` serves training and test, `NOVEL` test alone:
its rules put known operations together in ways that training never shows. Numbers stay below 150, products within the
12-times table.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

from reproduction.tinyworld.lexicon import PEOPLE, PLACES, WARES, Item, mask_numbers


@dataclass(frozen=True)
class Cast:
    """Who and what a problem is about: three different people, a ware, a place, and the source of its numbers."""

    p: str
    q: str
    t: str
    ware: str
    place: str
    rng: random.Random

    def number(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)


@dataclass(frozen=True)
class Problem:
    """A question, the lines of its rationale, and the answer."""

    question: str
    steps: tuple[str, ...]
    answer: int


Rule = Callable[[Cast], Problem]


def _mark(left: int, sign: str, right: int) -> str:
    """`7 + 5 = <<7+5=12>>12`, the calculator mark of GSM8K."""
    value = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]
    return f"{left} {sign} {right} = <<{left}{sign}{right}={value}>>{value}"


def _gain(c: Cast) -> Problem:
    a, b = c.number(3, 49), c.number(3, 49)
    question = f"{c.p} has {a} {c.ware}. {c.q} gives {c.p} {b} more. How many {c.ware} does {c.p} have now?"
    return Problem(question, (f"{c.p} has {_mark(a, '+', b)} {c.ware}.",), a + b)


def _loss(c: Cast) -> Problem:
    a = c.number(12, 70)
    b = c.number(3, a - 4)
    question = f"{c.p} has {a} {c.ware}. {c.p} loses {b} at the {c.place}. How many {c.ware} are left?"
    return Problem(question, (f"{c.p} has {_mark(a, '-', b)} {c.ware}.",), a - b)


def _crates(c: Cast) -> Problem:
    a, b = c.number(2, 9), c.number(3, 12)
    question = f"{c.p} packs {a} crates with {b} {c.ware} in each. How many {c.ware} does {c.p} pack?"
    return Problem(question, (f"{c.p} packs {_mark(a, '*', b)} {c.ware}.",), a * b)


def _share(c: Cast) -> Problem:
    b, each = c.number(2, 9), c.number(2, 12)
    question = f"{c.p} shares {b * each} {c.ware} equally among {b} friends. How many {c.ware} does each friend get?"
    return Problem(question, (f"Each friend gets {_mark(b * each, '/', b)} {c.ware}.",), each)


def _together(c: Cast) -> Problem:
    a, b = c.number(3, 49), c.number(3, 49)
    question = f"{c.p} has {a} {c.ware} and {c.q} has {b}. How many {c.ware} do they have together?"
    return Problem(question, (f"Together they have {_mark(a, '+', b)} {c.ware}.",), a + b)


def _compare_more(c: Cast) -> Problem:
    a, b = c.number(3, 49), c.number(3, 30)
    question = f"{c.p} has {a} {c.ware}. {c.q} has {b} more than {c.p}. How many {c.ware} does {c.q} have?"
    return Problem(question, (f"{c.q} has {_mark(a, '+', b)} {c.ware}.",), a + b)


def _compare_fewer(c: Cast) -> Problem:
    a = c.number(12, 70)
    b = c.number(3, a - 4)
    question = f"{c.p} has {a} {c.ware}. {c.q} has {b} fewer than {c.p}. How many {c.ware} does {c.q} have?"
    return Problem(question, (f"{c.q} has {_mark(a, '-', b)} {c.ware}.",), a - b)


def _difference(c: Cast) -> Problem:
    b = c.number(3, 40)
    a = b + c.number(3, 40)
    question = f"{c.p} has {a} {c.ware} and {c.q} has {b}. How many more {c.ware} does {c.p} have?"
    return Problem(question, (f"{c.p} has {_mark(a, '-', b)} more {c.ware}.",), a - b)


def _times(c: Cast) -> Problem:
    a, b = c.number(2, 12), c.number(2, 9)
    question = f"{c.p} has {a} {c.ware}. {c.q} has {b} times as many. How many {c.ware} does {c.q} have?"
    return Problem(question, (f"{c.q} has {_mark(a, '*', b)} {c.ware}.",), a * b)


def _gain_loss(c: Cast) -> Problem:
    a, b = c.number(5, 49), c.number(5, 40)
    d = c.number(3, a + b - 3)
    question = f"{c.p} has {a} {c.ware}, buys {b} more, and then sells {d}. How many {c.ware} does {c.p} have now?"
    steps = (f"{c.p} has {_mark(a, '+', b)} {c.ware}.", f"Then {c.p} has {_mark(a + b, '-', d)} {c.ware}.")
    return Problem(question, steps, a + b - d)


def _loss_loss(c: Cast) -> Problem:
    a = c.number(25, 90)
    b = c.number(3, a // 2)
    d = c.number(3, a - b - 3)
    question = f"{c.p} has {a} {c.ware}. {c.p} gives {b} to {c.q} and {d} to {c.t}. How many {c.ware} are left?"
    steps = (f"{c.p} has {_mark(a, '-', b)} {c.ware}.", f"Then {c.p} has {_mark(a - b, '-', d)} {c.ware}.")
    return Problem(question, steps, a - b - d)


def _crates_extra(c: Cast) -> Problem:
    a, b, d = c.number(2, 9), c.number(3, 12), c.number(3, 30)
    question = f"{c.p} packs {a} crates with {b} {c.ware} in each and {d} loose ones. How many {c.ware} in all?"
    steps = (f"The crates hold {_mark(a, '*', b)} {c.ware}.", f"In all there are {_mark(a * b, '+', d)} {c.ware}.")
    return Problem(question, steps, a * b + d)


def _crates_sold(c: Cast) -> Problem:
    a, b = c.number(3, 9), c.number(3, 12)
    d = c.number(2, a * b - 3)
    question = f"{c.p} packs {a} crates with {b} {c.ware} in each and sells {d} {c.ware}. How many {c.ware} are left?"
    steps = (f"The crates hold {_mark(a, '*', b)} {c.ware}.", f"Then {c.p} has {_mark(a * b, '-', d)} {c.ware}.")
    return Problem(question, steps, a * b - d)


def _compare_together(c: Cast) -> Problem:
    a, b = c.number(3, 40), c.number(3, 30)
    question = f"{c.p} has {a} {c.ware}. {c.q} has {b} more than {c.p}. How many {c.ware} do they have together?"
    steps = (f"{c.q} has {_mark(a, '+', b)} {c.ware}.", f"Together they have {_mark(a, '+', a + b)} {c.ware}.")
    return Problem(question, steps, a + a + b)


def _change(c: Cast) -> Problem:
    a, b = c.number(2, 9), c.number(2, 9)
    paid = a * b + c.number(3, 30)
    question = (
        f"{c.p} buys {a} {c.ware} for {b} pins each and pays with {paid} pins. How many pins does {c.p} get back?"
    )
    steps = (f"The {c.ware} cost {_mark(a, '*', b)} pins.", f"{c.p} gets back {_mark(paid, '-', a * b)} pins.")
    return Problem(question, steps, paid - a * b)


def _three_steps(c: Cast) -> Problem:
    a, b, d = c.number(2, 9), c.number(2, 9), c.number(3, 30)
    e = c.number(2, a * b + d - 2)
    question = (
        f"{c.p} picks {a} baskets of {b} {c.ware} and finds {d} more. {c.p} gives {e} to {c.q}. "
        f"How many {c.ware} are left?"
    )
    steps = (
        f"The baskets hold {_mark(a, '*', b)} {c.ware}.",
        f"In all there are {_mark(a * b, '+', d)} {c.ware}.",
        f"Then {c.p} has {_mark(a * b + d, '-', e)} {c.ware}.",
    )
    return Problem(question, steps, a * b + d - e)


def _times_together(c: Cast) -> Problem:
    a, b = c.number(2, 12), c.number(2, 8)
    question = f"{c.p} has {a} {c.ware}. {c.q} has {b} times as many. How many {c.ware} do they have together?"
    steps = (f"{c.q} has {_mark(a, '*', b)} {c.ware}.", f"Together they have {_mark(a, '+', a * b)} {c.ware}.")
    return Problem(question, steps, a + a * b)


def _compare_fewer_together(c: Cast) -> Problem:
    a = c.number(12, 50)
    b = c.number(3, a - 4)
    question = f"{c.p} has {a} {c.ware}. {c.q} has {b} fewer than {c.p}. How many {c.ware} do they have together?"
    steps = (f"{c.q} has {_mark(a, '-', b)} {c.ware}.", f"Together they have {_mark(a, '+', a - b)} {c.ware}.")
    return Problem(question, steps, a + a - b)


def _crates_gain(c: Cast) -> Problem:
    a, b, d = c.number(2, 9), c.number(3, 12), c.number(3, 30)
    question = (
        f"{c.p} packs {a} crates with {b} {c.ware} in each. {c.q} gives {c.p} {d} more. "
        f"How many {c.ware} does {c.p} have now?"
    )
    steps = (f"The crates hold {_mark(a, '*', b)} {c.ware}.", f"{c.p} has {_mark(a * b, '+', d)} {c.ware}.")
    return Problem(question, steps, a * b + d)


def _loss_gain(c: Cast) -> Problem:
    a = c.number(20, 70)
    b, d = c.number(3, a - 6), c.number(3, 40)
    question = f"{c.p} has {a} {c.ware}, sells {b}, and then buys {d} more. How many {c.ware} does {c.p} have now?"
    steps = (f"{c.p} has {_mark(a, '-', b)} {c.ware}.", f"Then {c.p} has {_mark(a - b, '+', d)} {c.ware}.")
    return Problem(question, steps, a - b + d)


def _three_people(c: Cast) -> Problem:
    a, b, d = c.number(3, 30), c.number(3, 30), c.number(3, 30)
    question = f"{c.p} has {a} {c.ware}, {c.q} has {b} and {c.t} has {d}. How many {c.ware} do they have together?"
    steps = (
        f"{c.p} and {c.q} have {_mark(a, '+', b)} {c.ware}.",
        f"Together they have {_mark(a + b, '+', d)} {c.ware}.",
    )
    return Problem(question, steps, a + b + d)


SEEN: dict[str, Rule] = {
    "gain": _gain, "loss": _loss, "crates": _crates, "share": _share, "together": _together,
    "compare_more": _compare_more, "compare_fewer": _compare_fewer, "difference": _difference, "times": _times,
    "gain_loss": _gain_loss, "loss_loss": _loss_loss, "crates_extra": _crates_extra, "crates_sold": _crates_sold,
    "compare_together": _compare_together, "change": _change, "three_steps": _three_steps,
}  # fmt: skip
NOVEL: dict[str, Rule] = {
    "times_together": _times_together, "compare_fewer_together": _compare_fewer_together, "crates_gain": _crates_gain,
    "loss_gain": _loss_gain, "three_people": _three_people,
}  # fmt: skip


def for_training(count: int = 1280, seed: int = 11) -> list[Item]:
    """Training problems, the structures of `SEEN` in turn; no two ask the same question."""
    return list(islice(_distinct(SEEN, random.Random(seed), novel=False, taken=set(), key=str), count))


def for_testing(count: int = 180, seed: int = 12) -> list[Item]:
    """Test problems, a fifth of them `NOVEL`; each differs from every training problem by more than its numbers."""
    rng = random.Random(seed)
    taken = {mask_numbers(item.row["question"]) for item in for_training()}
    novel = count // 5
    seen = islice(_distinct(SEEN, rng, novel=False, taken=taken, key=mask_numbers), count - novel)
    unseen = islice(_distinct(NOVEL, rng, novel=True, taken=taken, key=mask_numbers), novel)
    return [*seen, *unseen]


def _distinct(
    rules: dict[str, Rule], rng: random.Random, *, novel: bool, taken: set[str], key: Callable[[str], str]
) -> Iterator[Item]:
    for structure in cycle(rules):
        while True:
            cast = Cast(*rng.sample(PEOPLE, 3), rng.choice(WARES), rng.choice(PLACES), rng)
            problem = rules[structure](cast)
            # An answer that the question already holds could be had by copying.
            given = [word.strip(".,") for word in problem.question.split()]
            if str(problem.answer) not in given and key(problem.question) not in taken:
                break
        taken.add(key(problem.question))
        answer = "\n".join([*problem.steps, f"#### {problem.answer}"])
        yield Item({"question": problem.question, "answer": answer}, structure, novel)
