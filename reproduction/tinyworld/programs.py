"""Python tasks: instructions in CodeAlpaca's schema for training, problems in HumanEval's for testing.

`SEEN` rules are used in training and test, `NOVEL` ones only in the test. Functions have invented names without
meaning, so that a task can be understood only from its words.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from reproduction.tinyworld.lexicon import WARES, Item

Value = int | bool | str | list[int]


class Rule(NamedTuple):
    """A function's return value. In templates `{k}` is a number and `{w}` a ware.

    Args:
        argument: n, a number; xs, a list of numbers; or s, a string.
        words: wordings of the docstring, separated by "|".
        expression: the body's expression.
        apply: computes the value from the argument, k and w.
        numbers: range of k.
    """

    argument: str
    words: str
    expression: str
    apply: Callable[[Value, int, str], Value]
    numbers: tuple[int, int] = (2, 30)


class Task(NamedTuple):
    """One function to write: a rule with its values, and a name."""

    rule: Rule
    name: str
    k: int
    w: str
    words: str
    example: Value | None

    @property
    def header(self) -> str:
        """Signature and docstring, with the example if there is one."""
        example = ""
        if self.example is not None:
            shown = self.rule.apply(self.example, self.k, self.w)
            example = f"\n\n    >>> {self.name}({self.example!r})\n    {shown!r}\n    "
        return f'def {self.name}({self.rule.argument}):\n    """Return {self.words}.{example}"""\n'

    @property
    def body(self) -> str:
        return f"    return {self.rule.expression.format(k=self.k, w=self.w)}\n"


SEEN: dict[str, Rule] = {
    "plus": Rule("n", "n plus {k}|{k} more than n", "n + {k}", lambda n, k, w: n + k),
    "minus": Rule("n", "n minus {k}|{k} less than n", "n - {k}", lambda n, k, w: n - k),
    "times": Rule("n", "n times {k}|{k} times n", "n * {k}", lambda n, k, w: n * k),
    "remainder": Rule("n", "the rest of n divided by {k}", "n % {k}", lambda n, k, w: n % k),
    "above": Rule("n", "whether n is more than {k}", "n > {k}", lambda n, k, w: n > k),
    "multiple": Rule("n", "whether n is a multiple of {k}", "n % {k} == 0", lambda n, k, w: n % k == 0),
    "square_plus": Rule("n", "the square of n plus {k}", "n * n + {k}", lambda n, k, w: n * n + k),
    "sum_plus": Rule("xs", "the sum of xs plus {k}", "sum(xs) + {k}", lambda xs, k, w: sum(xs) + k),
    "max_plus": Rule("xs", "the largest of xs plus {k}", "max(xs) + {k}", lambda xs, k, w: max(xs) + k),
    "max_times": Rule("xs", "the largest of xs times {k}", "max(xs) * {k}", lambda xs, k, w: max(xs) * k),
    "min_plus": Rule("xs", "the smallest of xs plus {k}", "min(xs) + {k}", lambda xs, k, w: min(xs) + k),
    "length_times": Rule("xs", "the length of xs times {k}", "len(xs) * {k}", lambda xs, k, w: len(xs) * k),
    "keep_above": Rule("xs", "the items of xs above {k}|those of xs above {k}", "[x for x in xs if x > {k}]",
                       lambda xs, k, w: [x for x in xs if x > k]),
    "keep_below": Rule("xs", "the items of xs below {k}|those of xs below {k}", "[x for x in xs if x < {k}]",
                       lambda xs, k, w: [x for x in xs if x < k]),
    "each_plus": Rule("xs", "each of xs plus {k}", "[x + {k} for x in xs]", lambda xs, k, w: [x + k for x in xs]),
    "each_times": Rule("xs", "each of xs times {k}", "[x * {k} for x in xs]", lambda xs, k, w: [x * k for x in xs]),
    "first": Rule("xs", "the first {k} of xs", "xs[:{k}]", lambda xs, k, w: xs[:k], (2, 5)),
    "last": Rule("xs", "the last {k} of xs", "xs[-{k}:]", lambda xs, k, w: xs[-k:], (2, 5)),
    "count_number": Rule("xs", "how often {k} is in xs", "xs.count({k})", lambda xs, k, w: xs.count(k), (2, 9)),
    "repeat": Rule("s", "s repeated {k} times", "s * {k}", lambda s, k, w: s * k, (2, 9)),
    "append": Rule("s", "s followed by '{w}'", "s + '{w}'", lambda s, k, w: s + w),
    "prepend": Rule("s", "'{w}' followed by s", "'{w}' + s", lambda s, k, w: w + s),
    "reverse_append": Rule("s", "s backwards followed by '{w}'", "s[::-1] + '{w}'", lambda s, k, w: s[::-1] + w),
    "upper_append": Rule("s", "s in capitals followed by '{w}'", "s.upper() + '{w}'", lambda s, k, w: s.upper() + w),
}  # fmt: skip
NOVEL: dict[str, Rule] = {
    "sum_times": Rule("xs", "the sum of xs times {k}", "sum(xs) * {k}", lambda xs, k, w: sum(xs) * k),
    "min_times": Rule("xs", "the smallest of xs times {k}", "min(xs) * {k}", lambda xs, k, w: min(xs) * k),
    "length_plus": Rule("xs", "the length of xs plus {k}", "len(xs) + {k}", lambda xs, k, w: len(xs) + k),
    "max_minus": Rule("xs", "the largest of xs minus {k}", "max(xs) - {k}", lambda xs, k, w: max(xs) - k),
    "below": Rule("n", "whether n is less than {k}", "n < {k}", lambda n, k, w: n < k),
    "each_minus": Rule("xs", "each of xs minus {k}", "[x - {k} for x in xs]", lambda xs, k, w: [x - k for x in xs]),
    "square_times": Rule("n", "the square of n times {k}", "n * n * {k}", lambda n, k, w: n * n * k),
    "reverse_repeat": Rule("s", "s backwards repeated {k} times", "s[::-1] * {k}", lambda s, k, w: s[::-1] * k, (2, 9)),
}  # fmt: skip


def function_names(share: str) -> list[str]:
    """Return the invented function names of one share: "corpus", "train" or "test"."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    names = [first + second for first in syllables for second in syllables]
    random.Random(31).shuffle(names)
    return {"corpus": names[:2000], "train": names[2000:4000], "test": names[4000:]}[share]


def _draw_argument(kind: str, k: int, rng: random.Random) -> Value:
    """Draw an argument, often near `k`, to distinguish `>` from `>=`."""
    if kind == "n":
        return rng.choice((k, k + 1, max(k - 1, 0), 2 * k, rng.randint(0, 60)))
    if kind == "xs":
        return [rng.choice((k, rng.randint(0, 60), rng.randint(0, 60))) for _ in range(rng.randint(3, 7))]
    return rng.choice(WARES) + rng.choice(("", " ", "-")) + rng.choice(WARES)


def _draw_task(rule: Rule, name: str, rng: random.Random, *, example_share: float = 0.25) -> Task:
    k = rng.randint(*rule.numbers)
    example = _draw_argument(rule.argument, k, rng) if rng.random() < example_share else None
    if isinstance(example, list):
        example = example[:3]
    w, wordings = rng.choice(WARES), rule.words.split("|")
    return Task(rule, name, k, w, wordings[rng.randrange(len(wordings))].format(k=k, w=w), example)


def for_training(count: int = 1200, seed: int = 21) -> list[Item]:
    """Generate instructions and functions: half ask in prose, half give a header to complete."""
    rng = random.Random(seed)
    items = []
    for index, name in zip(range(count), function_names("train"), strict=False):
        structure, rule = list(SEEN.items())[index % len(SEEN)]
        in_prose = index // len(SEEN) % 2 == 1
        # Prose contains no example, so the docstring has none.
        task = _draw_task(rule, name, rng, example_share=0.0 if in_prose else 0.25)
        if in_prose:
            row = {
                "instruction": f"Write a Python function {name}({rule.argument}) that returns {task.words}.",
                "input": "",
            }
        else:
            row = {"instruction": "Complete the Python function.", "input": task.header}
        items.append(Item(row | {"output": (task.header + task.body).rstrip()}, structure))
    return items


def for_testing(count: int = 40, seed: int = 22) -> list[Item]:
    """Generate problems in HumanEval's schema with eight random test cases each, a fifth of them `NOVEL`."""
    rng = random.Random(seed)
    novel = count // 5
    chosen = [*_spread(SEEN, count - novel, rng), *_spread(NOVEL, novel, rng)]
    items = []
    for index, (structure, name) in enumerate(zip(chosen, function_names("test"), strict=False)):
        rule = SEEN.get(structure) or NOVEL[structure]
        task = _draw_task(rule, name, rng)
        arguments = [_draw_argument(rule.argument, task.k, rng) for _ in range(8)]
        cases = [f"    assert candidate({value!r}) == {rule.apply(value, task.k, task.w)!r}\n" for value in arguments]
        row = {
            "task_id": f"TinyWorld/{index}",
            "prompt": task.header,
            "entry_point": task.name,
            "canonical_solution": task.body,
            "test": "def check(candidate):\n" + "".join(cases),
        }
        items.append(Item(row, structure, novel=structure in NOVEL))
    return items


def _spread(rules: dict[str, Rule], count: int, rng: random.Random) -> list[str]:
    """Return `count` structures with frequencies that differ by at most one."""
    whole, rest = divmod(count, len(rules))
    return list(rules) * whole + rng.sample(list(rules), rest)
