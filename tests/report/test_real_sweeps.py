"""What a real model says of single tasks, counts, clusters and the paper's claims: each sentence can go either way."""

import re
import shutil
from pathlib import Path

import pytest
from made_rates import make_real_beside, make_trials
from made_sweeps import BUDGETS, drop_pairs, make_budgets, make_clusters, make_single

from idlora.records import write_json
from idlora.report.real import real_sentences, write_real

IDLORAS = [method for method in BUDGETS if method.startswith("idlora")]


@pytest.fixture
def results(repository: Path, tmp_path: Path) -> Path:
    """A reference without Tables 1, 7 and 8."""
    experiments = Path(shutil.copytree(repository / "experiments", tmp_path / "experiments"))
    make_trials(experiments)
    return make_real_beside(experiments)


def said(results: Path, title: str) -> str:
    """The sentence of a title; nothing where it is left out."""
    found = real_sentences(results, results.parent / "experiments")
    return next((each for each in found if each.startswith(f"**{title}.**")), "")


def test_with_all_tables_there_are_at_most_ten_bullets_and_without_them_none_of_theirs(results: Path) -> None:
    titles = ("Single tasks", "Counts and clusters")
    assert not any(said(results, title) for title in titles)
    make_single(results)
    make_budgets(results)
    make_clusters(results)
    assert all(said(results, title) for title in titles)
    assert len(real_sentences(results, results.parent / "experiments")) <= 10


def test_single_tasks_say_losses_scores_and_refusals_at_both_rates(results: Path) -> None:
    make_single(results, losses={"llama3_paper_rate": {"idlora": 0.5}})
    told = said(results, "Single tasks")
    assert "Trained on one task at each method's best rate, ID-LoRA is in held-out loss behind on GSM8K rows" in told
    assert "held out by 0.0200 [0.0192, 0.0208], test answers by 0.0200" in told
    assert "Scores in % of LoRA and ID-LoRA: GSM8K 4.0 and 4.0, level (+0.0 [-1.0, +1.0]); HumanEval pass@1" in told
    assert "Of the others, full fine-tuning is ahead on GSM8K rows held out" in told
    assert "HydraLoRA is behind on" in told
    assert "DoRA" not in told.replace("HydraLoRA", "")
    assert "ID-LoRA refuse in % 80.0 and 80.0 of safety prompts, level (+0.0 [-1.0, +1.0]); 1.0 and 1.0" in told
    controls = "the data's own answers 70.0 and 0.5; always refusing 100.0 and 100.0; never refusing 0.0 and 0.0; Base"
    assert told.count(f"For comparison, of both: {controls} (untuned) 0.0 and 0.0.") == 1
    at_paper = told.split("Trained on one task at the paper's rates")[1]
    assert at_paper.startswith(" (one run each, intervals over items alone), ID-LoRA is in held-out loss ahead on ")
    assert "; in scores level on GSM8K, HumanEval pass@1, pass@5 and pass@10." in at_paper
    assert "behind" not in at_paper


def test_single_tasks_come_out_the_other_way_and_fewer_refusals_of_harmless_prompts_are_ahead(results: Path) -> None:
    scores = {"gsm8k": {"idlora": 8.0}, "refusal": {"idlora": 60.0}, "harmless": {"idlora": 5.0}}
    make_single(results, losses={"llama3": {"idlora": 0.7, "fft": 0.71, "hydralora": 0.71}}, scores={"llama3": scores})
    told = said(results, "Single tasks").split("at the paper's rates")[0]
    assert "in held-out loss ahead on GSM8K rows held out by 0.0100 [0.0092, 0.0108]" in told
    assert "GSM8K 4.0 and 8.0, ahead by 4.0 points [3.0, 5.0]" in told
    assert "All others are level with LoRA." in told
    assert "80.0 and 60.0 of safety prompts, behind by 20.0 points [19.0, 21.0]; 1.0 and 5.0 of harmless ones" in told
    assert "(fewer is better), behind by 4.0 points [3.0, 5.0]." in told
    make_single(results, scores={"llama3": {"harmless": {"idlora": 0.0, "lora": 5.0}}})
    assert "5.0 and 0.0 of harmless ones (fewer is better), ahead by 5.0 points" in said(results, "Single tasks")


def test_counts_say_at_which_one_idlora_reaches_lora_and_how_few_lora_needs(results: Path) -> None:
    make_budgets(results)
    told = said(results, "Counts and clusters")
    assert "ID-LoRA of 0.91M (0.8720) is ahead of LoRA of 0.31M, behind LoRA of 0.61M, 1.22M, 1.83M, 3.05M and" in told
    assert "ID-LoRA of 1.84M (0.8580) is ahead of LoRA of 0.31M, 0.61M and 1.22M, behind LoRA of 1.83M, 3.05M" in told
    assert "as good as ID-LoRA at its best, 0.8530 with 2.47M, are 1.83M (0.8500)." in told
    assert told.endswith("No ID-LoRA is level with or ahead of every LoRA of no more numbers.")


@pytest.mark.parametrize(
    ("losses", "fewest", "reached"),
    [
        ({"idlora": 0.8495}, "0.8495 with 1.84M, are 1.83M (0.8500).", "Only ID-LoRA of 1.84M is level with or ahead"),
        ({"idlora_double": 0.83}, "0.8300 with 2.47M, are more than any here.", "Only ID-LoRA of 2.47M is level with"),
        (dict.fromkeys(IDLORAS, 0.87), "0.8700 with 0.91M, are 0.61M (0.8700).", "Only ID-LoRA of 0.91M is level"),
        (dict.fromkeys(IDLORAS, 0.8), "0.8000 with 0.91M, are more than any here.", "Every ID-LoRA is level with or"),
    ],
)
def test_counts_come_out_the_other_way(results: Path, losses: dict[str, float], fewest: str, reached: str) -> None:
    make_budgets(results, **losses)
    told = said(results, "Counts and clusters")
    assert f"as good as ID-LoRA at its best, {fewest}" in told
    assert reached in told
    assert ("level with LoRA of 1.83M" in told) == (losses.get("idlora") == 0.8495)


def test_clusters_stand_by_their_rank_against_four(results: Path) -> None:
    make_clusters(results)
    told = said(results, "Counts and clusters")
    assert "By clusters, k = 4 at r=32 (1.12M) is ahead of k = 2 at r=32 (1.10M) by 0.0010 [0.0002, 0.0018]" in told
    assert "(1.10M) by 0.0010 [0.0002, 0.0018]; level with k = 3 at r=32 (1.11M) (+0.0003 [" in told
    assert "level with k = 3 at r=32 (1.11M) (+0.0003 [-0.0005, +0.0011]). k = 4 at r=16" in told
    assert "ahead of k = 2 at r=16 (1.13M) by 0.0030 [0.0022, 0.0038] and k = 8 at r=16 (1.16M) by 0.0040" in told
    assert "level with k = 6 at r=16" in told
    make_clusters(results, idlora_half_k8=0.86)
    assert "behind k = 8 at r=16 (1.16M) by 0.0060" in said(results, "Counts and clusters")


def test_counts_of_which_a_pair_is_missing_are_left_out(results: Path) -> None:
    make_budgets(results)
    make_clusters(results)
    drop_pairs(results / "reference" / "small" / "tables" / "budgets.csv", "lora_double")
    assert said(results, "Counts and clusters").startswith("**Counts and clusters.** By clusters, k = 4")


def test_the_papers_claims_are_counted_by_the_audits_own_verdicts(results: Path) -> None:
    def counted() -> tuple[int, ...]:
        told = said(results, "The paper's claims")
        numbers = (
            r"Of the paper's (\d+) claims that this model can speak to, (\d+) hold, (\d+) do not and (\d+) are not"
        )
        return tuple(map(int, re.search(numbers, told).groups()))

    total, *verdicts = counted()
    assert total == sum(verdicts)
    make_single(results)
    make_budgets(results)
    make_clusters(results)
    more, holds, fails, _ = counted()
    assert more > total
    single = {column: {"idlora": 99.0} for column in ("gsm8k", "pass@1", "pass@5", "pass@10", "refusal")}
    make_single(results, losses={"llama3": {"idlora": 0.5}}, scores={"llama3": single})
    make_budgets(results, **dict.fromkeys(IDLORAS, 0.8))
    same, now_holds, now_fails, _ = counted()
    assert same == more
    assert now_holds > holds
    assert now_fails < fails


def test_the_references_own_words_say_what_the_runs_took(results: Path) -> None:
    experiments, folder = results.parent / "experiments", results / "reference" / "small"
    assert "wall time" not in write_real(results, experiments).read_text(encoding="utf-8")
    spent = {"device": "gpu", "runs": 4, "timed": 4, "work_seconds": 360.0, "wall_seconds": 120.0}
    write_json(folder / "provenance.json", {"time": [spent]})
    words = write_real(results, experiments).read_text(encoding="utf-8")
    assert "\n\n4 runs on gpu took 2.0 minutes of wall time, in which 3.0 cells were at work side by side" in words
