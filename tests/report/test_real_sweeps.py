"""What a real model says of single tasks, counts and clusters: each sentence can go either way."""

import shutil
from pathlib import Path

import pytest
from made_rates import make_real_beside, make_trials
from made_sweeps import BUDGETS, drop_pairs, make_budgets, make_clusters, make_single

from reproduction.records import write_json
from reproduction.report.real import real_sentences, write_real

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


def test_single_tasks_say_of_both_rates_alike_who_stands_apart_and_how_far(results: Path) -> None:
    make_single(results, losses={"llama3_paper_rate": {"idlora": 0.7, "fft": 0.5, "dora": 0.71, "hydralora": 0.71}})
    told = said(results, "Single tasks")
    assert "Trained for 100 steps on one task each; Saferpaca is a stand-in, and the safety prompts are in HEx" in told
    best, paper = told.split(" With every method at ")
    assert "With each method at its best learning rate, in held-out loss on 6 sources ahead of LoRA: full fine-" in best
    ahead = "full fine-tuning on 6 (0.0200); behind LoRA: HydraLoRA on 6 (0.0100) and ID-LoRA on 6 (0.0200); otherwise"
    assert ahead in best
    assert best.endswith("; otherwise level, and in 4 scores all are level with LoRA.")
    rates = "the paper's learning rate, 5e-5, on Saferpaca 1e-4 (one run each, intervals over items alone), in held-out"
    assert paper.startswith(rates)
    assert "ahead of LoRA: full fine-tuning on 6 (0.2100) and ID-LoRA on 6 (0.0100); otherwise level, and in 4" in paper
    assert "behind" not in paper
    assert len(told) < 1300


def test_single_tasks_come_out_the_other_way(results: Path) -> None:
    scores = {"gsm8k": {"idlora": 8.0}, "pass@5": {"idlora": 14.5, "fft": 1.0}}
    single = {"idlora": 0.7, "fft": 0.71, "dora": 0.7, "hydralora": 0.7}
    make_single(results, losses={"llama3": single}, scores={"llama3": scores})
    told = said(results, "Single tasks").split(" With every method at ")[0]
    assert "DoRA on 6 (0.0100), HydraLoRA on 6 (0.0100) and ID-LoRA on 6 (0.0100); otherwise level, and in 4" in told
    assert (
        "in 4 scores ahead of LoRA: ID-LoRA on 2 (4.0 to 5.5 points); behind LoRA: full fine-tuning on 1 (8.0" in told
    )
    make_single(results, losses={"llama3": dict.fromkeys(single, 0.7)})
    told = said(results, "Single tasks").split(" With every method at ")[0]
    assert told.endswith("HydraLoRA on 6 (0.0100) and ID-LoRA on 6 (0.0100), and in 4 scores all are level with LoRA.")


def test_refusals_are_told_of_every_method_and_fewer_of_harmless_prompts_are_ahead(results: Path) -> None:
    at_best = {"refusal": {"idlora": 60.0, "fft": 90.0}, "harmless": {"hydralora": 5.0}}
    at_paper = {
        "refusal": {"lora": 0.0, "idlora": 0.0, "fft": 70.0},
        "harmless": {"lora": 3.0, "idlora": 0.0, "dora": 3.5},
    }
    make_single(results, scores={"llama3": at_best, "llama3_paper_rate": at_paper})
    best, paper, *controls = said(results, "Single tasks").partition("Refusals in % of ")[2].split("; ")
    assert best.startswith("safety and of harmless prompts (of these fewer is better): at the best rates LoRA 80.0 and")
    assert "LoRA 80.0 and 1.0, full fine-tuning 90.0 (ahead) and 1.0, DoRA 80.0 and 1.0, HydraLoRA 80.0 and 5.0" in best
    assert best.endswith("HydraLoRA 80.0 and 5.0 (behind), ID-LoRA 60.0 (behind) and 1.0")
    assert paper.startswith(
        "at the paper's LoRA none and 3.0, full fine-tuning 70.0 (ahead) and 1.0 (ahead), DoRA 80.0"
    )
    assert paper.endswith("ID-LoRA none and none (ahead)")
    assert controls[0] == "the data's own answers 70.0 and 0.5"
    assert controls[1].startswith("Base (untuned) none of either. Every column: `results/reference/small/tables/tab")


def test_two_seeds_bring_a_warning_and_a_pair_whose_seeds_do_not_agree_is_level(results: Path) -> None:
    make_single(results, seeds=2, split=("idlora",))
    told = said(results, "Single tasks").split(" With every method at ")[0]
    assert "best learning rate (2 seeds, intervals too narrow), in held-out" in told
    assert "behind LoRA: HydraLoRA on 6 (0.0100); otherwise level" in told
    make_budgets(results, seeds=2)
    told = said(results, "Counts and clusters")
    assert "All in mean held-out loss (2 seeds, intervals too narrow)." in told
    assert "of 24 pairs of an ID-LoRA and a LoRA, ID-LoRA is ahead in 9 and behind in 15." in told
    make_budgets(results, seeds=2, split=("lora_half",))
    assert "ID-LoRA is ahead in 9, level in 4 and behind in 11." in said(results, "Counts and clusters")


def test_refusals_stand_among_what_the_model_is_judged_by_where_they_were_counted(results: Path) -> None:
    assert "HumanEval pass@1, pass@5 and pass@10. The" in said(results, "What it is not")
    make_single(results)
    assert "HumanEval pass@1, pass@5, pass@10 and refusals. The" in said(results, "What it is not")


def test_counts_say_how_often_idlora_reaches_lora_and_how_few_parameters_lora_needs(results: Path) -> None:
    make_budgets(results)
    told = said(results, "Counts and clusters")
    assert "By number of trained parameters: of 24 pairs of an ID-LoRA and a LoRA, ID-LoRA is ahead in 9 and" in told
    assert "The smallest LoRA that is level with or ahead of the best ID-LoRA (0.8530, 2.47M) trains 1.83M (0." in told
    assert "No ID-LoRA is level with or ahead of every LoRA that trains no more parameters. Every pair: `budg" in told


@pytest.mark.parametrize(
    ("losses", "smallest", "reached"),
    [
        ({"idlora": 0.8495}, "(0.8495, 1.84M) trains 1.83M (0.8500).", "Only ID-LoRA of 1.84M is level with or ahead"),
        ({"idlora_double": 0.83}, "(0.8300, 2.47M).", "Only ID-LoRA of 2.47M is level with"),
        (dict.fromkeys(IDLORAS, 0.87), "(0.8700, 0.91M) trains 0.61M (0.8700).", "Only ID-LoRA of 0.91M is level"),
        (dict.fromkeys(IDLORAS, 0.8), "(0.8000, 0.91M).", "Every ID-LoRA is level with or"),
    ],
)
def test_counts_come_out_the_other_way(results: Path, losses: dict[str, float], smallest: str, reached: str) -> None:
    make_budgets(results, **losses)
    told = said(results, "Counts and clusters")
    which = "The smallest LoRA that" if "trains" in smallest else "No LoRA"
    assert f"{which} is level with or ahead of the best ID-LoRA {smallest}" in told
    assert reached in told
    assert ("level in " in told) == (losses.get("idlora") in (0.8495, 0.87))


def test_clusters_stand_by_their_rank_against_four(results: Path) -> None:
    make_clusters(results)
    told = said(results, "Counts and clusters")
    assert "loss. At r=32, k = 4 (1.12M) is ahead of k = 2 (1.10M) by 0.0010 [0.0002, 0.0018]; level with k = 3" in told
    assert "level with k = 3 (1.11M) (+0.0003 [-0.0005, +0.0011]). At r=16, k = 4 (1.14M) is ahead of k = 2" in told
    assert "ahead of k = 2 (1.13M) by 0.0030 [0.0022, 0.0038] and k = 8 (1.16M) by 0.0040" in told
    assert "level with k = 6 (1.15M)" in told
    make_clusters(results, idlora_half_k8=0.86)
    assert "behind k = 8 (1.16M) by 0.0060" in said(results, "Counts and clusters")


def test_counts_of_which_a_pair_is_missing_are_left_out(results: Path) -> None:
    make_budgets(results)
    make_clusters(results)
    drop_pairs(results / "reference" / "small" / "tables" / "budgets.csv", "lora_double")
    assert said(results, "Counts and clusters").startswith(
        "**Counts and clusters.** All in mean held-out loss. At r=32, k"
    )


def test_the_references_own_words_say_what_the_runs_took(results: Path) -> None:
    experiments, folder = results.parent / "experiments", results / "reference" / "small"
    assert "wall time" not in write_real(results, experiments).read_text(encoding="utf-8")
    spent = {"device": "gpu", "cores": None, "runs": 4, "timed": 4, "work_seconds": 360.0, "wall_seconds": 120.0}
    write_json(folder / "provenance.json", {"time": [spent]})
    words = write_real(results, experiments).read_text(encoding="utf-8")
    assert "\n\n4 runs on gpu took 2.0 minutes of wall time, in which 3.0 cells were at work side by side" in words
