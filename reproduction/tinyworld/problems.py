"""Word problems in GSM8K's schema: a question, and a rationale with calculator marks whose last line is `#### n`.

The rules are in `world.yaml`. Numbers stay below 150, products within the 12-times table.
"""

import operator
import random
import re
from collections.abc import Callable, Iterator
from itertools import cycle, islice

from reproduction.tinyworld.lexicon import PEOPLE, PLACES, WARES, WORLD, Item

SEEN: dict[str, dict] = WORLD["problems"]
NOVEL: dict[str, dict] = WORLD["novel_problems"]
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


def for_training(count: int = 1280, seed: int = 11) -> list[Item]:
    """Generate training problems, cycling through the structures of `SEEN`, with distinct questions."""
    return list(islice(_distinct(SEEN, random.Random(seed), taken=set(), key=str), count))


def for_testing(count: int = 180, seed: int = 12) -> list[Item]:
    """Generate test problems, a fifth `NOVEL`; each differs from all training problems by more than numbers."""
    rng = random.Random(seed)
    taken = {mask_numbers(item.row["question"]) for item in for_training()}
    seen = islice(_distinct(SEEN, rng, taken=taken, key=mask_numbers), count - count // 5)
    return [*seen, *islice(_distinct(NOVEL, rng, taken=taken, key=mask_numbers), count // 5)]


def mask_numbers(text: str) -> str:
    """Replace every number by "#": texts that differ only in numbers become equal."""
    return re.sub(r"\d+", "#", text)


def _distinct(
    rules: dict[str, dict], rng: random.Random, *, taken: set[str], key: Callable[[str], str]
) -> Iterator[Item]:
    for structure in cycle(rules):
        while True:
            question, rationale, answer = _draw(rules[structure], rng)
            # An answer that is in the question could be copied.
            if str(answer) not in re.findall(r"\d+", question) and key(question) not in taken:
                break
        taken.add(key(question))
        row = {"question": question, "answer": f"{rationale}\n#### {answer}"}
        yield Item(row, structure, novel=structure in NOVEL)


def _draw(rule: dict, rng: random.Random) -> tuple[str, str, int]:
    """Draw question, rationale and result of a problem."""
    words = dict(zip("pqt", rng.sample(PEOPLE, 3), strict=True)) | {"w": rng.choice(WARES), "place": rng.choice(PLACES)}
    values: dict[str, int] = {}
    for name, expressions in rule["numbers"].items():
        bounds = [_compute(each, values) for each in expressions.split()]
        values[name] = rng.randint(*bounds) if len(bounds) == 2 else bounds[0]
    results = iter("xyz")

    def mark(step: re.Match) -> str:
        left, sign, right = values[step[1]], step[2], values[step[3]]
        value = values[next(results)] = _OPERATIONS[sign](left, right)
        return f"{left} {sign} {right} = <<{left}{sign}{right}={value}>>{value}"

    rationale = re.sub(r"\[(\w)([-+*/])(\w)\]", mark, rule["steps"].format(**words))
    return rule["question"].format(**words, **values), rationale, [*values.values()][-1]


def _compute(expression: str, values: dict[str, int]) -> int:
    """Evaluate an expression such as `a*b+d-2` from left to right."""
    first, *rest = re.findall(r"[-+*/]?\w+", expression)
    value = values[first] if first in values else int(first)
    for term in rest:
        value = _OPERATIONS[term[0]](value, values[term[1:]] if term[1:] in values else int(term[1:]))
    return value
