"""The audit's column "On a real model": intervals decide it, and every claim can come out either way."""

import re
import shutil
from pathlib import Path

import pytest
from made_rates import change_rates, make_real_beside, make_trials
from made_sweeps import BUDGETS, make_budgets, make_clusters, make_single

from idlora.report.audit import AuditError, audit, judge_all, totals, write_audit
from idlora.report.audit.claims import FAILS, HOLDS, UNMEASURED, UNRESOLVED
from idlora.report.figures import Sources
from idlora.report.page import build_page

MULTI = ("gsm8k", "mmlu", "commonsenseqa", "pass@1", "pass@5", "pass@10")
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


def test_every_claim_that_is_read_on_a_real_model_can_hold_and_can_fail(experiments: Path) -> None:
    controls, rows = ("lora_equal", "idlora_no_rb"), ("idlora_random", "idlora_serial")
    good = sweeping(make_real_beside(experiments, ahead=controls, **scoring(99), **losing(0.9)), well=True)
    for method in ("lora", "dora", "hydralora"):
        change_rates(good, method, best_rate="0.0016")
    wins = real_verdicts(experiments, good)
    bad = make_real_beside(experiments, ahead=rows, **scoring(0), **losing(1.5))
    loses = real_verdicts(experiments, sweeping(bad, well=False))
    for claim in wins:
        expected = (FAILS, HOLDS) if claim == "rb-not-on-math" else (HOLDS, FAILS)
        assert (wins[claim][0], loses[claim][0]) == expected, claim
        if claim != "setup-identical-hyperparameters":
            assert "(" in wins[claim][1], f"{claim} has a reading without pairs"


def test_a_claim_of_tables_that_have_not_been_run_has_no_verdict(experiments: Path) -> None:
    found = real_verdicts(experiments, make_real_beside(experiments))
    unmeasured = {claim for claim, (verdict, _) in found.items() if verdict == UNMEASURED}
    named = ("single-safety", "abstract-low-rank-degrades", "parity-consistently-surpasses", "appendix-decline-at-8")
    assert unmeasured.issuperset(named)
    assert unmeasured.isdisjoint({"abstract-outperforms-all", "multi-math-on-par", "conclusion-math-less"})


def test_one_larger_rank_that_is_level_leaves_the_order_of_ranks_unresolved(experiments: Path) -> None:
    results = make_real_beside(experiments)
    make_budgets(results, lora=0.8505)
    assert real_verdicts(experiments, results)["related-ranks-help"][0] == UNRESOLVED
    make_budgets(results, lora=0.86)
    assert real_verdicts(experiments, results)["related-ranks-help"][0] == FAILS


def test_the_papers_rates_of_two_tables_are_not_compared_with_each_other(experiments: Path) -> None:
    path = experiments / "audit" / "claims.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('s1p["lora", "pass@10"]', 's2p["lora", "pass@10"]'), encoding="utf-8")
    make_single(results := make_real_beside(experiments))
    with pytest.raises(AuditError, match="compared with a value of its own table"):
        judge_all(experiments, results, scale="tiny")


def test_the_best_rates_decide_and_the_papers_rate_and_longer_training_stand_beside(experiments: Path) -> None:
    verdict, told = real_verdicts(experiments, make_real_beside(experiments))["abstract-outperforms-all"]
    assert verdict == FAILS
    first, benchmarks, at_paper, longer = told.split("; ")
    assert "one run each" not in first + benchmarks
    assert first.endswith("each at its own best rate (5 pairs: 5 the other way)")
    assert benchmarks == "so on every benchmark: does not hold (6 pairs: 1 the other way, 5 not resolved)"
    assert at_paper == "in held-out loss at the paper's one rate for all (one run each): holds (5 pairs: 5 as claimed)"
    assert longer == "in held-out loss after two epochs (one run each): does not hold (5 pairs: 5 the other way)"


def test_a_reading_that_has_not_been_measured_stands_beside_nothing(experiments: Path) -> None:
    results = make_real_beside(experiments)
    (results / "reference" / "small" / "significance" / "table_longer.csv").unlink()
    _, told = real_verdicts(experiments, results)["abstract-outperforms-all"]
    assert "at the paper's one rate" in told
    assert "two epochs" not in told


def test_a_score_at_chance_or_zero_decides_nothing_however_far_it_is_ahead(experiments: Path) -> None:
    far = {"scores": {"llama3": {"pass@10": {"idlora": 99.0}}}}
    for floors, verdict in (({}, HOLDS), ({"pass@10": "zero"}, UNRESOLVED)):
        found = real_verdicts(experiments, make_real_beside(experiments, floors=floors, **far))
        assert found["multi-pass10-records"][0] == verdict


@pytest.mark.parametrize(("won", "verdict"), [(5, HOLDS), (4, UNRESOLVED), (0, FAILS)])
def test_five_columns_of_six_are_counted(won: int, verdict: str, experiments: Path) -> None:
    lost = 0 if won == 4 else 6 - won
    values = [99.0] * won + [0.0] * lost + [None] * (6 - won - lost)
    own = {column: {"idlora": value} for column, value in zip(MULTI[::-1], values, strict=True) if value is not None}
    level = {column: {"idlora": 30.0, "lora": 30.0} for column in MULTI} | own
    results = make_real_beside(experiments, scores={"llama3": level}, floors={})
    assert real_verdicts(experiments, results)["multi-five-of-six"][0] == verdict


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
    assert re.search(r"On a real model, for \d+ of them: \d hold, \d+ do not hold, \d are not", said)
    assert "does not hold: ahead of LoRA alone" in (results / "audit" / "audit.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "expression",
    [
        'l2["idlora", "loss"] < 1',
        'l2["idlora", "loss"] < l2["lora", "loss_alpaca"]',
        'l2["idlora", "loss"] < l2p["lora", "loss"]',
        'l2["idlora", "loss"]',
    ],
)
def test_a_loss_is_compared_with_a_loss_of_its_own_block_and_column_alone(expression: str, experiments: Path) -> None:
    results = make_real_beside(experiments)
    path = experiments / "audit" / "claims.yaml"
    text = path.read_text(encoding="utf-8")
    wrong = text.replace('all(l2["idlora", c] <= l2["lora", c] for c in losses)', expression)
    assert wrong != text
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(AuditError, match="claim intro-lora-level"):
        judge_all(experiments, results, scale="tiny")


def test_two_methods_that_no_file_compares_have_not_been_measured(experiments: Path) -> None:
    path = experiments / "audit" / "claims.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('s2["lora", "pass@10"]', 's2["dora", "pass@10"]'), encoding="utf-8")
    found = real_verdicts(experiments, make_real_beside(experiments))["multi-pass10-records"]
    assert found == (UNMEASURED, found[1])
    assert "in held-out loss on HumanEval's solutions: does not hold" in found[1]
