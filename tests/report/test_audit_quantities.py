"""Printed numbers with their widths: what they stand for, what is computed from them, and when two compare."""

from fractions import Fraction

import numpy as np
import pytest

from reproduction.report.audit.quantities import (
    Cell,
    compare,
    exact,
    extreme,
    fewer,
    mean,
    printed,
    relative,
    share,
)


def cell(text: str, method: str = "lora"):
    return printed(text, cell=Cell("table1", "llama3", method, "gsm8k"))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("46", "45.5", "46.5"),
        ("0.56", "0.555", "0.565"),
        ("6.0", "5.95", "6.05"),
        ("5e-5", "0.000045", "0.000055"),
        ("83.9M", "83850000", "83950000"),
        ("1.3B", "1250000000", "1350000000"),
    ],
)
def test_a_printed_number_stands_for_all_that_rounds_to_it(text, low, high):
    number = printed(text)
    assert (number.low, number.high) == (Fraction(low), Fraction(high))
    assert str(number) == text


@pytest.mark.parametrize("text", ["", "AdamW", "63,5", "46%", "1.2.3"])
def test_other_text_is_refused_with_the_value_in_the_sentence(text):
    with pytest.raises(ValueError, match="is no printed number"):
        printed(text)


def test_whatever_true_values_are_printed_the_computed_interval_holds_the_true_result():
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b = (Fraction(int(n), 1000) for n in rng.integers(5000, 99000, size=2))
        p, q = printed(f"{float(a):.1f}"), printed(f"{float(b):.1f}")
        true = {
            "difference": (p - q, a - b),
            "ratio": (p / q, a / b),
            "product": (p * q, a * b),
            "distance": (abs(p - q), abs(a - b)),
            "mean": (mean([p, q]), (a + b) / 2),
            "fewer": (fewer(p, q), 100 * (1 - a / b)),
            "relative": (relative(p, q), 100 * (a / b - 1)),
            "share": (share(p, q), 100 * a / (a + b)),
            "largest": (extreme([p, q, exact(0)], largest=True), max(a, b)),
        }
        for name, (interval, value) in true.items():
            assert interval.low <= value <= interval.high, (name, a, b)


def test_an_interval_is_no_wider_than_its_corners():
    found = fewer(printed("0.56"), printed("1.03"))
    assert found.low == 100 * (1 - Fraction("0.565") / Fraction("1.025"))
    assert found.high == 100 * (1 - Fraction("0.555") / Fraction("1.035"))
    assert str(found) == "45.63 [44.88, 46.38]"


def test_the_paper_has_the_benefit_of_rounding_but_not_more():
    by_percentages, by_count = fewer(printed("0.56"), printed("1.03")), fewer(printed("49.0M"), printed("83.9M"))
    assert compare("==", by_percentages, printed("46"))
    assert not compare("==", by_count, printed("46"))
    assert not compare("==", by_percentages, printed("50"))


def test_equal_printed_numbers_are_a_tie_and_a_tie_is_no_lead():
    first, second = cell("48.5"), cell("48.5", "idlora")
    assert not compare(">", first, second)
    assert not compare("<", first, second)
    assert compare(">=", first, second)
    assert compare("==", first, second)
    assert compare(">", cell("48.6"), second)


def test_a_computed_number_may_use_the_rounding_that_a_printed_one_may_not():
    first, second = cell("48.5"), cell("48.5", "idlora")
    assert compare(">", first - second, exact(0))
    assert not compare(">", first - cell("48.7"), exact(0))


def test_dividing_by_what_may_be_zero_is_refused():
    with pytest.raises(ZeroDivisionError, match="may be zero"):
        exact(1) / (cell("48.5") - cell("48.5"))


def test_the_best_of_printed_numbers_is_one_of_them_and_keeps_its_place():
    best = extreme([cell("41.7", "fft"), cell("55.0", "idlora"), cell("50.8")], largest=True)
    assert (best.text, best.cell.method) == ("55.0", "idlora")
    with pytest.raises(ValueError, match="of nothing"):
        extreme([], largest=True)
