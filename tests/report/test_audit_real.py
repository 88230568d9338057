"""The audit's column "On a real model": intervals decide it, and every claim can come out either way."""

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from made_rates import make_real_beside, make_trials
from made_results import write
from made_sweeps import BUDGETS, make_budgets, make_clusters, make_single

from reproduction.report.audit import (
    AuditError,
    audit,
    judge_all,
    load_claims,
    read_on_real_model,
    totals,
    write_audit,
)
from reproduction.report.audit.claims import FAILS, HOLDS, UNMEASURED, UNRESOLVED
from reproduction.report.figures import Sources
from reproduction.report.page import build_page
from reproduction.report.real import real_sentences

MULTI = ("gsm8k", "mmlu", "commonsenseqa", "pass@1", "pass@5", "pass@10")
LORA = "against LoRA alone"
BLOCKS = ("llama3", "llama3_paper_rate", "llama3_full", "llama3_2_3b")


@pytest.fixture
def experiments(repository: Path, tmp_path: Path) -> Path:
    experiments = Path(shutil.copytree(repository / "experiments", tmp_path / "experiments"))
    make_trials(experiments)
    return experiments


def real_verdicts(experiments: Path, results: Path) -> dict[str, tuple[str, str]]:
    judged = judge_all(experiments, results, scale="tiny")
    return {each.id: (each.real_verdict, each.real) for each in judged if each.real_verdict}


def scoring(value: float) -> dict:
    """ID-LoRA's score in every column of every block."""
    return {"scores": {base: {column: {"idlora": value} for column in MULTI} for base in BLOCKS}, "floors": {}}


def losing(value: float) -> dict:
    """ID-LoRA's loss in every block against LoRA."""
    return {"losses": {base: {"idlora": value} for base in BLOCKS}}


def sweeping(results: Path, *, well: bool) -> Path:
    """Tables 1, 7 and 8 with ID-LoRA ahead, more of a rank better and four clusters best; or all the other way."""
    sign = 1 if well else -1
    scores = {column: {"idlora": 99.0 if well else 0.0} for column in (*MULTI, "refusal")}
    blocks, losses = ("llama3", "llama3_paper_rate"), {"idlora": 0.71 - 0.1 * sign}
    make_single(results, losses=dict.fromkeys(blocks, losses), scores=dict.fromkeys(blocks, scores))
    loras, own = list(BUDGETS)[:6], list(BUDGETS)[6:]
    ordered = {method: 0.9 - sign * 0.01 * place for place, method in enumerate(loras)}
    make_budgets(results, **ordered, **{m: 0.9 - sign * (0.1 + 0.01 * place) for place, m in enumerate(own)})
    of_k = {"idlora": 0, "idlora_k2": 1, "idlora_k3": 1, "idlora_half": 0, "idlora_half_k2": 2}
    of_k |= {"idlora_half_k6": 1, "idlora_half_k8": 2}
    make_clusters(results, **{method: 0.8 + sign * 0.01 * place for method, place in of_k.items()})
    return results


def score_largest_rank(results: Path, lead: float) -> None:
    """Give ID-LoRA's largest rank of Table 7 a lead over its partner on three benchmarks."""
    path = results / "reference" / "small" / "significance" / "table7.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    own = next(row for row in rows if row["method"] == "idlora_double")
    ends = {"difference": lead, "seeds_ci_low": lead - 1, "seeds_ci_high": lead + 1, "metric": "strict"}
    write(path, rows + [own | ends | {"column": column} for column in ("gsm8k", "mmlu", "pass@1")])


def put(experiments: Path, claim: str, expression: str) -> None:
    """Read a claim on a real model by this expression alone."""
    path = experiments / "audit" / "claims.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    entry = next(entry for entry in data["claims"] if entry["id"] == claim)
    entry["real"] = [{"reading": "as a test reads it", "expression": expression}]
    path.write_text(yaml.safe_dump(data), encoding="utf-8")


def test_every_reading_of_a_claim_on_a_real_model_can_hold_and_can_fail(experiments: Path) -> None:
    controls, rows = ("lora_equal", "idlora_no_rb"), ("idlora_random", "idlora_serial")
    good = sweeping(make_real_beside(experiments, ahead=controls, **scoring(99), **losing(0.9)), well=True)
    score_largest_rank(good, 99)
    wins = read_on_real_model(experiments, good)
    bad = make_real_beside(experiments, ahead=rows, **scoring(0), **losing(1.5))
    score_largest_rank(sweeping(bad, well=False), -99)
    loses = read_on_real_model(experiments, bad)
    read = [claim for claim in load_claims(experiments / "audit" / "claims.yaml")[1] if claim.real]
    assert read == [each.claim for each in wins] == [each.claim for each in loses]
    assert len(read) > 25
    for claim, win, lose in zip(read, wins, loses, strict=True):
        one, other = (lose, win) if claim.id == "rb-not-on-math" else (win, lose)
        assert {told.found for told in one.told} == {HOLDS}, claim.id
        assert {told.found for told in other.told} == {FAILS}, claim.id
        assert all(told.comparisons for told in win.told), f"{claim.id} has a reading without pairs"


def test_what_holds_of_less_than_the_sentence_says_so(experiments: Path) -> None:
    results = sweeping(make_real_beside(experiments, **scoring(99), **losing(0.9)), well=True)
    found = real_verdicts(experiments, results)
    for claim in ("abstract-outperforms-all", "intro-surpasses-single-task", "multi-five-of-six", "single-safety"):
        assert found[claim][0] == "holds against LoRA alone"
        assert "LoRA" in found[claim][1].split(";")[0]
    for claim in ("intro-6-absolute", "single-42-to-84", "parity-margin-grows"):
        assert found[claim][0] == "holds as a gain at all"
    assert found["related-ranks-help"][0] == found["intro-lora-level"][0] == HOLDS
    said = totals(audit(experiments, results, scale="tiny"))
    assert re.search(
        r"\d+ hold, \d+ hold against LoRA alone, \d+ hold as a gain at all, \d+ do not hold, \d+ are", said
    )


@pytest.mark.parametrize(
    ("behind", "floors", "verdict"),
    [
        (0.0, {}, HOLDS),
        (0.9, {}, HOLDS),
        (1.1, {}, UNRESOLVED),
        (2.9, {}, UNRESOLVED),
        (3.1, {}, FAILS),
        (-50, {}, HOLDS),
        (0.0, {"gsm8k": "zero"}, UNRESOLVED),
        (9.0, {"gsm8k": "zero"}, UNRESOLVED),
    ],
)
def test_a_score_is_on_par_where_the_whole_interval_is_above_the_margin(
    behind: float, floors: dict[str, str], verdict: str, experiments: Path
) -> None:
    """Intervals are one point wide on either side."""
    scores = {"llama3": {"gsm8k": {"lora": 60.0, "idlora": 60.0 - behind}}}
    found = real_verdicts(experiments, make_real_beside(experiments, scores=scores, floors=floors))
    assert found["multi-math-on-par"][0] == verdict


def test_losses_that_are_level_leave_not_behind_open(experiments: Path) -> None:
    level = {"llama3": {"lora": 1.094, "idlora": 1.094}}
    told = real_verdicts(experiments, make_real_beside(experiments, losses=level))["multi-math-on-par"][1]
    loss = next(part for part in told.split("; ") if "in held-out loss" in part)
    assert loss.startswith("behind LoRA beyond noise in held-out loss on neither source")
    assert loss.endswith("at each method's best rate: not resolved here (2 pairs: 2 not resolved)")


def test_a_claim_of_tables_that_have_not_been_run_has_no_verdict(experiments: Path) -> None:
    found = real_verdicts(experiments, make_real_beside(experiments))
    unmeasured = {claim for claim, (verdict, _) in found.items() if verdict == UNMEASURED}
    named = ("single-safety", "abstract-low-rank-degrades", "parity-margin-grows", "appendix-decline-at-8")
    assert unmeasured.issuperset(named)
    assert unmeasured.isdisjoint({"abstract-outperforms-all", "multi-math-on-par", "parity-consistently-surpasses"})


def test_benchmarks_that_were_not_run_leave_a_claim_about_them_open_whatever_the_losses_say(experiments: Path) -> None:
    results = sweeping(make_real_beside(experiments), well=True)
    verdict, told = real_verdicts(experiments, results)["appendix-best-at-099"]
    assert verdict == UNRESOLVED
    benchmarks, loss, _ = told.split("; ")
    assert benchmarks.endswith("on GSM8K, MMLU and Pass@1 (not run)")
    assert loss.endswith("in the mean held-out loss: holds (7 pairs: 7 as claimed)")


def test_one_larger_rank_that_is_level_leaves_the_order_of_ranks_unresolved(experiments: Path) -> None:
    results = make_real_beside(experiments)
    make_budgets(results, lora=0.8505)
    assert real_verdicts(experiments, results)["related-ranks-help"][0] == UNRESOLVED
    make_budgets(results, lora=0.86)
    assert real_verdicts(experiments, results)["related-ranks-help"][0] == FAILS


def test_a_reading_is_put_over_the_best_rates_which_decide_the_papers_rate_and_longer_training(
    experiments: Path,
) -> None:
    verdict, told = real_verdicts(experiments, make_real_beside(experiments))["abstract-outperforms-all"]
    assert verdict == FAILS
    first, at_paper, longer, benchmarks, *_ = told.split("; ")
    assert "one run each" not in first + benchmarks
    assert first.endswith("at each method's best rate (5 pairs: 5 the other way)")
    assert at_paper == "at the paper's rate (one run each): holds against LoRA alone (5 pairs: 5 as claimed)"
    assert longer == "after two epochs (one run each): does not hold (5 pairs: 5 the other way)"
    assert benchmarks.startswith("ahead of LoRA alone on every benchmark, trained on several tasks, at each method's")
    assert benchmarks.endswith("best rate: does not hold (6 pairs: 1 the other way, 5 not resolved)")
    path = experiments / "audit" / "claims.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("over: single", "over: sngle"), encoding="utf-8")
    with pytest.raises(AuditError, match="over is sngle; it is one of several, single"):
        judge_all(experiments, Path("none"), scale="tiny")


def test_a_reading_that_has_not_been_measured_is_said_not_to_have_been_run(experiments: Path) -> None:
    results = make_real_beside(experiments)
    (results / "reference" / "small" / "significance" / "table_longer.csv").unlink()
    _, told = real_verdicts(experiments, results)["abstract-outperforms-all"]
    assert "; at the paper's rate (one run each): holds" in told
    assert told.count("; after two epochs: not run; ") == 2


def test_a_score_at_chance_or_zero_decides_nothing_however_far_it_is_ahead(experiments: Path) -> None:
    far = {"scores": {"llama3": {"pass@10": {"idlora": 99.0}}}}
    for floors, verdict in (({}, HOLDS), ({"pass@10": "zero"}, UNRESOLVED)):
        found = real_verdicts(experiments, make_real_beside(experiments, floors=floors, **far))
        assert found["multi-pass10-records"][0].removesuffix(f" {LORA}") == verdict


@pytest.mark.parametrize(("won", "verdict"), [(5, HOLDS), (4, UNRESOLVED), (0, FAILS)])
def test_five_columns_of_six_are_counted(won: int, verdict: str, experiments: Path) -> None:
    lost = 0 if won == 4 else 6 - won
    values = [99.0] * won + [0.0] * lost + [None] * (6 - won - lost)
    own = {column: {"idlora": value} for column, value in zip(MULTI[::-1], values, strict=True) if value is not None}
    level = {column: {"idlora": 30.0, "lora": 30.0} for column in MULTI} | own
    results = make_real_beside(experiments, scores={"llama3": level}, floors={})
    assert real_verdicts(experiments, results)["multi-five-of-six"][0].removesuffix(f" {LORA}") == verdict


def test_the_audits_column_is_there_with_the_reference_and_a_page_has_it_then_alone(
    experiments: Path, tmp_path: Path
) -> None:
    results = tmp_path / "own" / "results"
    sources = Sources(results, experiments, "tiny")

    def written() -> tuple[str, str]:
        found = audit(experiments, results, scale="tiny")
        write_audit(found, results / "audit")
        return build_page(sources), totals(found)

    page, said = written()
    assert {each[0] for each in real_verdicts(experiments, results).values()} == {UNMEASURED}
    assert "on a real model" not in page
    assert "real model" not in said
    shutil.copytree(make_real_beside(experiments) / "reference", results / "reference")
    page, said = written()
    claims = re.search(r'<table id="claims".*?</table>', page, re.DOTALL)[0]
    assert '<th scope="col">on a real model</th>' in claims
    assert claims.count("<td>") == 5 * claims.count("<tr ")
    assert re.search(r"On a real model, for \d+ of them: \d hold, \d+ do not hold, \d+ are not", said)
    assert "does not hold: ahead of LoRA alone" in (results / "audit" / "audit.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "expression",
    [
        'l2["idlora", "loss"] < 1',
        'l2["idlora", "loss"] < l2["lora", "loss_alpaca"]',
        'l2["idlora", "loss"] < l2p["lora", "loss"]',
        'l2["idlora", "loss"]',
        'l1p["idlora", "loss_gsm8k"] < l2p["lora", "loss_gsm8k"]',
        'within(l2["idlora", "loss"], l2["lora", "loss"], 2)',
        'within(s2["idlora", "gsm8k"], s2["lora", "mmlu"], 2)',
        "within(1, 2, 2)",
    ],
)
def test_losses_and_scores_are_compared_within_their_own_block_and_column_and_only_scores_have_a_margin(
    expression: str, experiments: Path
) -> None:
    put(experiments, "intro-lora-level", expression)
    with pytest.raises(AuditError, match="claim intro-lora-level"):
        judge_all(experiments, make_real_beside(experiments), scale="tiny")


def test_two_methods_that_no_file_compares_have_not_been_measured(experiments: Path) -> None:
    put(experiments, "multi-pass10-records", 's2["idlora", "pass@10"] > s2["dora", "pass@10"]')
    found = real_verdicts(experiments, make_real_beside(experiments))["multi-pass10-records"]
    assert found == (UNMEASURED, "as a test reads it")


def test_the_sentence_counts_the_audits_own_verdicts_and_what_the_papers_rates_and_the_losses_say(
    experiments: Path,
) -> None:
    numbers = (
        r"the paper's (\d+) claims that .*, (\d+) hold, (\d+) do not and (\d+) .* of the (\d+) about ID-LoRA "
        r"(\d+) hold \((\d+) of them as parity.* loss decides (\d+) and benchmark scores (\d+); .* not hold, (\d+) "
        r"have a reading at the paper's own rates .* not resolved, (\d+) have one"
    )

    def counted(results: Path) -> list[int]:
        said = next(each for each in real_sentences(results, experiments) if "The paper's claims" in each)
        total, *counts = map(int, re.search(numbers, said).groups())
        found = Counter(each.found for each in read_on_real_model(experiments, results))
        assert counts[:3] == [found[HOLDS], found[FAILS], found[UNRESOLVED]]
        assert total == sum(counts[:3])
        return counts

    results = make_real_beside(experiments, scores={"llama3": {"gsm8k": {"idlora": 6.0}}})
    held, failed, unresolved, own, own_held, parity, by_loss, by_score, at_paper, in_loss = counted(results)
    assert held + failed + unresolved == own == by_loss + by_score
    assert (held, own_held, parity) == (4, 4, 3), "on par on GSM8K, and PMRC's rows ahead of others"
    assert by_loss == 2, "ahead of all others, and PMRC's rows"
    make_budgets(results)
    more = counted(results)
    assert (more[0] - held, more[4]) == (3, own_held + 1), "two claims about LoRA's ranks hold, and one about both's"
    worse = make_real_beside(experiments, losses={BLOCKS[1]: {"idlora": 1.5}, BLOCKS[2]: {"idlora": 0.9}})
    assert counted(worse)[-2] == 0 < at_paper, "what holds after two epochs alone is not counted"
    losses = {base: {"idlora": loss} for base, loss in zip(BLOCKS[:3], (0.9, 1.5, 0.9), strict=True)}
    better = make_real_beside(experiments, losses=losses)
    assert counted(better)[-1] < in_loss, "what fails at the paper's rate alone is not counted"
