"""The expression language of the claims: results, errors, and no side effects."""

from typing import Any

import pytest

from reproduction.report.audit import ExpressionError, evaluate
from reproduction.report.audit.names import Lookup
from reproduction.report.audit.quantities import Cell, exact, printed


class Unknown:
    """A measurement that does not decide any comparison."""

    def compare(self, symbol: str, other: Any) -> None:
        return None


PRINTED = {
    "lora": {"gsm8k": "62.8", "hexphi": "91.6"},
    "dora": {"gsm8k": "63.5", "hexphi": "93.6"},
    "idlora": {"gsm8k": "63.5†", "hexphi": "95.3†"},
}
CELLS = {
    ("llama3", method, column): printed(
        text.rstrip("†"), cell=Cell("table1", "llama3", method, column), dagger=text.endswith("†")
    )
    for method, row in PRINTED.items()
    for column, text in row.items()
}
NAMES = {
    "t1": Lookup("table1", CELLS),
    "columns": ["gsm8k", "hexphi"],
    "others": ["lora", "dora"],
    "ranks": [exact(8), exact(16)],
    "pairs": [["lora", "dora"], ["dora", "idlora"]],
    "open": Unknown(),
}


@pytest.mark.parametrize(
    ("expression", "truth"),
    [
        ('t1["llama3", "idlora", "gsm8k"] > t1["llama3", "lora", "gsm8k"]', True),
        ('t1["llama3", "idlora", "gsm8k"] > t1["llama3", "dora", "gsm8k"]', False),
        ('all(t1["llama3", "idlora", c] >= t1["llama3", m, c] for m in others for c in columns)', True),
        ('all(t1["llama3", b, c] > t1["llama3", a, c] for a, b in pairs for c in columns)', False),
        ('any(t1["llama3", b, "hexphi"] > t1["llama3", a, "hexphi"] for a, b in pairs)', True),
        ('count(t1["llama3", "idlora", c] > t1["llama3", "dora", c] for c in columns) == 1', True),
        ('max(t1["llama3", :, "hexphi"]) == quoted("95.3")', True),
        ('mean(t1["llama3", "idlora", c] for c in columns) == quoted("79.4")', True),
        ("100 * 2 / 4 - 1 == 49 and -(1) < abs(0 - 2) <= 2", True),
        ("min(r for r in ranks if 2 * r > 16) == 16", True),
        ('count(1 == 1 for m in ["lora", "idlora"] if dagger(t1["llama3", m, "gsm8k"])) == 1', True),
        ('count(unmarked(t1["llama3", m, "gsm8k"]) for m in others) == 2', True),
        ('relative(t1["llama3", "idlora", "hexphi"], t1["llama3", "lora", "hexphi"]) == quoted("4.0")', True),
        ("any(r == 9 for r in ranks)", False),
        # undecided measurements stay undecided only where they matter
        ("all([1 == 1, open > 1])", None),
        ("all([1 == 2, open > 1])", False),
        ("any([1 == 1, open > 1])", True),
        ("any([1 == 2, open > 1])", None),
        ("open > 1 and 1 == 2", False),
        ("open > 1 or 1 == 2", None),
        ("count([1 == 1, open > 1, 1 == 2]) == 2", None),
        ("count([1 == 1, open > 1, 1 == 2]) >= 1", True),
        ("count([1 == 1, open > 1, 1 == 2]) > 2", False),
    ],
)
def test_expressions_say_what_they_say_in_python_with_a_third_truth(expression: str, truth: bool | None) -> None:
    assert evaluate(expression, NAMES).truth is truth


@pytest.mark.parametrize(
    "expression",
    [
        '__import__("os").system("true")',
        "t1.cells",
        "(lambda: 1)() == 1",
        'open("/etc/passwd")',
        "[c for c in columns] == columns",
        "1 if 1 else 0",
        "{1: 2} == {1: 2}",
        "2 ** 1000000 > 1",
        "(x := 1) == 1",
        "not 1 == 2",
        'f"{1}" == "1"',
        "mean(ranks, key=1) == 1",
        'max(t1["llama3", :, "gsm8k"]',
        "1 != 2",
        '"a" + "b" == "ab"',
        "True",
        "max(r for r in ranks if r > 99) == 1",
        "within(1, 2, 2)",
    ],
)
def test_whatever_is_outside_the_language_is_refused(expression: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(expression, NAMES)


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ('t1["llama3", "lora", "mmlu"] > 1', "table1 has no llama3, lora, mmlu"),
        ("t9 > 1", "'t9'"),
        ('quoted("AdamW") == 1', "'AdamW'"),
        ('t1["llama3", "lora", "gsm8k"]', "no statement"),
        ('1 / (t1["llama3", "lora", "gsm8k"] - t1["llama3", "lora", "gsm8k"]) > 1', "may be zero"),
        ("t1[1 / 3, 2, 3] > 1", "cannot be looked up"),
        ('t1["llama3", "lora", "gsm8k"] > "big"', "cannot be compared"),
        ("all(r > 1 for r in ranks) and r > 1", "'r'"),  # names of a comprehension are local to it
    ],
)
def test_a_mistake_is_told_with_the_part_that_is_wrong(expression: str, part: str) -> None:
    with pytest.raises(ExpressionError, match=part):
        evaluate(expression, NAMES)


def test_everything_is_evaluated_so_that_all_failures_are_known() -> None:
    outcome = evaluate('all(t1["llama3", "lora", c] > t1["llama3", "dora", c] for c in columns)', NAMES)
    assert (outcome.truth, outcome.value) == (False, "0 of 2")
    assert [each.truth for each in outcome.comparisons] == [False, False]


def test_a_condition_chooses_and_is_no_part_of_the_claim() -> None:
    lora = 't1["llama3", "lora", "gsm8k"]'
    outcome = evaluate(
        f'all(t1["llama3", m, "gsm8k"] > 63 for m in others if t1["llama3", m, "gsm8k"] > {lora})', NAMES
    )
    assert outcome.truth is True
    assert [str(each.left) for each in outcome.comparisons] == ["63.5"]
