"""The audit's column "On a real model": intervals decide it, and every claim can come out either way."""

import csv
import shutil
from pathlib import Path

import pytest
import yaml
from made_rates import make_real
from made_results import write
from made_sweeps import BUDGETS, make_budgets, make_clusters, make_single

from reproduction.report.audit import AuditError, audit, judge_all, load_claims, read_on_real_model, totals
from reproduction.report.audit.claims import FAILS, HOLDS, UNMEASURED, UNRESOLVED

MULTI = ("gsm8k", "mmlu", "commonsenseqa", "pass@1", "pass@5", "pass@10")
BLOCKS = ("llama3", "llama3_paper_rate", "llama3_full", "llama3_2_3b")
Verdicts = dict[str, tuple[str, str]]


@pytest.fixture
def experiments(repository: Path, tmp_path: Path) -> Path:
    for folder in [*(f"table{n}" for n in range(1, 9)), "audit"]:
        shutil.copytree(repository / "experiments" / folder, tmp_path / "experiments" / folder)
    path = tmp_path / "experiments" / "tuning" / "small" / "trials.csv"  # training steps of Table 1's methods
    write(path, [{"experiment": "gsm8k_llama3", "steps": 100}])
    return tmp_path / "experiments"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def read(experiments: Path, results: Path) -> Verdicts:
    rows = judge_all(experiments, results, scale="tiny")
    return {row["id"]: (row["real_verdict"], row["real"]) for row in rows if row["real_verdict"]}


def scoring(value: float) -> dict:
    """Set ID-LoRA's score in every column of every block."""
    return {"scores": {base: {column: {"idlora": value} for column in MULTI} for base in BLOCKS}, "floors": {}}


def losing(value: float) -> dict:
    """Set ID-LoRA's loss in every block."""
    return {"losses": {base: {"idlora": value} for base in BLOCKS}}


def sweep(results: Path, *, well: bool) -> None:
    """Make Tables 1, 7 and 8 with ID-LoRA ahead, larger ranks better and four clusters best; or all reversed."""
    sign = 1 if well else -1
    scores = {column: {"idlora": 99.0 if well else 0.0} for column in (*MULTI, "refusal")}
    blocks = ("llama3", "llama3_paper_rate")
    make_single(
        results, losses={each: {"idlora": 0.71 - 0.1 * sign} for each in blocks}, scores=dict.fromkeys(blocks, scores)
    )
    loras, own = list(BUDGETS)[:6], list(BUDGETS)[6:]
    ordered = {method: 0.9 - sign * 0.01 * place for place, method in enumerate(loras)}
    make_budgets(results, **ordered, **{m: 0.9 - sign * (0.1 + 0.01 * place) for place, m in enumerate(own)})
    of_k = {"idlora": 0, "idlora_k2": 1, "idlora_k3": 1, "idlora_half": 0, "idlora_half_k2": 2}
    of_k |= {"idlora_half_k6": 1, "idlora_half_k8": 2}
    make_clusters(results, **{method: 0.8 + sign * 0.01 * place for method, place in of_k.items()})
    path = results / "reference" / "small" / "significance" / "table7.csv"  # and scores of the largest rank
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    largest = next(row for row in rows if row["method"] == "idlora_double")
    lead = {"difference": 99 * sign, "seeds_ci_low": 99 * sign - 1, "seeds_ci_high": 99 * sign + 1, "metric": "strict"}
    write(path, rows + [largest | lead | {"column": column} for column in ("gsm8k", "mmlu", "pass@1")])


def test_every_reading_of_a_claim_on_a_real_model_can_hold_and_can_fail(experiments: Path, results: Path) -> None:
    make_real(results, ahead=("lora_equal", "idlora_no_rb"), **scoring(99), **losing(0.9))
    sweep(results, well=True)
    wins = read_on_real_model(experiments, results)
    summary = totals(audit(experiments, results, scale="tiny"))
    shutil.rmtree(results)
    make_real(results, ahead=("idlora_random", "idlora_serial"), **scoring(0), **losing(1.5))
    sweep(results, well=False)
    loses = read_on_real_model(experiments, results)
    claims = [claim for claim in load_claims(experiments / "audit" / "claims.yaml")[1] if claim.real]
    assert claims == [each.claim for each in wins] == [each.claim for each in loses]
    for claim, win, lose in zip(claims, wins, loses, strict=True):
        one, other = (lose, win) if claim.id == "rb-not-on-math" else (win, lose)
        assert {reading.found for reading in one.readings} == {HOLDS}, claim.id
        assert {reading.found for reading in other.readings} == {FAILS}, claim.id
        assert all(reading.comparisons for reading in win.readings), f"{claim.id} has a reading without pairs"
        assert one.verdict == f"{HOLDS} {claim.real_only}".rstrip(), "what holds of less than the sentence says so"
    assert f"for {len(claims)} of them" in summary
    assert "hold against LoRA alone" in summary


@pytest.mark.parametrize(
    ("behind", "floors", "verdict"),
    [
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
    behind: float, floors: dict[str, str], verdict: str, experiments: Path, results: Path
) -> None:
    """Intervals extend one point to either side."""
    make_real(results, scores={"llama3": {"gsm8k": {"lora": 60.0, "idlora": 60.0 - behind}}}, floors=floors)
    assert read(experiments, results)["multi-math-on-par"][0] == verdict


def test_losses_that_are_level_leave_not_behind_open(experiments: Path, results: Path) -> None:
    make_real(results, losses={"llama3": {"lora": 1.094, "idlora": 1.094}})
    text = read(experiments, results)["multi-math-on-par"][1]
    loss = next(part for part in text.split("; ") if "in held-out loss" in part)
    assert loss.endswith(f"{UNRESOLVED} (2 pairs: 2 not resolved)")


def test_what_has_not_been_run_has_no_verdict_and_the_readings_that_were_decide_nothing_alone(
    experiments: Path, results: Path
) -> None:
    make_real(results)
    (results / "reference" / "small" / "significance" / "table_longer.csv").unlink()
    found = read(experiments, results)
    assert {found[claim][0] for claim in ("single-safety", "abstract-low-rank-degrades")} == {UNMEASURED}
    text = found["abstract-outperforms-all"][1]
    assert text.count("; after two epochs: not run; ") == 2
    sweep(results, well=True)
    (results / "reference" / "small" / "significance" / "table7.csv").unlink()  # these scores decide
    verdict, text = read(experiments, results)["appendix-best-at-099"]
    assert verdict == UNRESOLVED
    assert "(not run)" in text
    assert "holds (7 pairs: 7 as claimed)" in text


def test_one_larger_rank_that_is_level_leaves_the_order_of_ranks_unresolved(experiments: Path, results: Path) -> None:
    for loss, verdict in ((0.845, HOLDS), (0.8505, UNRESOLVED), (0.86, FAILS)):
        make_budgets(results, lora=loss)
        assert read(experiments, results)["related-ranks-help"][0] == verdict


def test_the_best_rates_decide_and_the_papers_rate_and_longer_training_stand_beside_them(
    experiments: Path, results: Path
) -> None:
    make_real(results)
    verdict, text = read(experiments, results)["abstract-outperforms-all"]
    first, at_paper, longer, *_ = text.split("; ")
    assert verdict == FAILS
    assert first.endswith("at each method's best rate (5 pairs: 5 the other way)")
    assert at_paper == "at the paper's rate (one run each): holds against LoRA alone (5 pairs: 5 as claimed)"
    assert longer == "after two epochs (one run each): does not hold (5 pairs: 5 the other way)"


def test_a_score_at_chance_or_zero_decides_nothing_however_far_it_is_ahead(experiments: Path, results: Path) -> None:
    for floors, verdict in (({}, f"{HOLDS} against LoRA alone"), ({"pass@10": "zero"}, UNRESOLVED)):
        make_real(results, floors=floors, scores={"llama3": {"pass@10": {"idlora": 99.0}}})
        assert read(experiments, results)["multi-pass10-records"][0] == verdict


@pytest.mark.parametrize(("won", "verdict"), [(5, HOLDS), (4, UNRESOLVED), (0, FAILS)])
def test_five_columns_of_six_are_counted(won: int, verdict: str, experiments: Path, results: Path) -> None:
    lost = 0 if won == 4 else 6 - won  # the others of the six are level
    values = [99.0] * won + [0.0] * lost + [30.0] * (6 - won - lost)
    scores = {column: {"lora": 30.0, "idlora": value} for column, value in zip(MULTI, values, strict=True)}
    make_real(results, scores={"llama3": scores}, floors={})
    assert read(experiments, results)["multi-five-of-six"][0].removesuffix(" against LoRA alone") == verdict


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
        's2["idlora", "pass@10"] > s2["dora", "pass@10"]',
    ],
)
def test_losses_and_scores_are_compared_within_their_own_block_and_column_and_only_scores_have_a_margin(
    expression: str, experiments: Path, results: Path
) -> None:
    make_real(results)
    path = experiments / "audit" / "claims.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    entry = next(entry for entry in data["claims"] if entry["id"] == "intro-lora-level")
    entry["real"] = [{"reading": "as a test reads it", "expression": expression}]
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    if "dora" in expression:  # no file compares these two methods
        assert read(experiments, results)["intro-lora-level"] == (UNMEASURED, "as a test reads it")
        return
    with pytest.raises(AuditError, match="claim intro-lora-level"):
        judge_all(experiments, results, scale="tiny")
