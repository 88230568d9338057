"""Sentences on a real model: they match the tables, and change with them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_rates import change_rates, make_real, make_real_beside, make_trials
from made_sweeps import BUDGETS, make_budgets, make_clusters, make_single

from reproduction.records import write_json
from reproduction.report.audit import read_on_real_model
from reproduction.report.figures import Sources
from reproduction.report.page import build_page
from reproduction.report.real import Facts, real_sentences, short_answers, summary_table, verdict, write_real

ROWS = ("idlora_random", "idlora_serial", "idlora_pivoted_qr", "idlora_smallest_norm", "idlora_largest_norm")
MULTI = ("gsm8k", "mmlu", "commonsenseqa", "pass@1", "pass@5", "pass@10")
IDLORAS = [method for method in BUDGETS if method.startswith("idlora")]
BEST, PAPER = "llama3", "llama3_paper_rate"
RATE, LONGER, SCORES, SINGLE, SWEEPS, WORTH, CONTROLS, LIMITS = (
    "The learning rate", "Longer training", "Benchmarks", "Single tasks", "Counts and clusters",
    "What a loss difference is worth", "Which rows, and whether rows", "What it is not",
)  # fmt: skip


@pytest.fixture(scope="module")
def results(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference of the made-up story, beside its experiments."""
    experiments = tmp_path_factory.mktemp("real") / "experiments"
    shutil.copytree(repository / "experiments", experiments)
    make_trials(experiments)
    results = make_real_beside(experiments)
    make_single(results)
    make_budgets(results)
    make_clusters(results)
    return results


@pytest.fixture
def make(results: Path, tmp_path: Path):
    """Make the sentences by title, of a story changed in ``real``, ``single``, ``budgets`` or ``clusters``."""

    def make_sentences(**changes: dict[str, Any]) -> dict[str, str]:
        own = tmp_path / "results"
        shutil.copytree(results, own, dirs_exist_ok=True)
        shutil.copytree(results.parent / "experiments", tmp_path / "experiments", dirs_exist_ok=True)
        makers = {"real": make_real, "single": make_single, "budgets": make_budgets, "clusters": make_clusters}
        for name, story in changes.items():
            makers[name](own, **story)
        return by_title(own)

    return make_sentences


def by_title(results: Path) -> dict[str, str]:
    words = real_sentences(results, results.parent / "experiments")
    return {re.match(r"\*\*(.*?)\.\*\*", each)[1]: each for each in words}


def test_the_sentences_have_the_tables_numbers_and_are_ten(results: Path) -> None:
    words = by_title(results)
    assert len(words) == 10
    assert "1.0940 ± 0.0005 for LoRA and 1.1080 ± 0.0005 for ID-LoRA; ahead of LoRA: full" in words["Who is ahead"]
    assert "LoRA at an equal count (1.83M) is ahead of ID-LoRA by 0.0114 [0.0106, 0.0122]." in words["Who is ahead"]
    assert "1.6e-3 for ID-LoRA and 4e-3 for LoRA" in words[RATE]
    assert "decides which of ID-LoRA" in words[RATE]
    assert "is 270 for ID-LoRA and 3.36 for LoRA, whose rows of A are 0.58 long" in words[RATE]
    assert "ID-LoRA's loss is 0.0120 below LoRA's after 1,900 steps" in words[LONGER]
    assert "Nobody is called ahead on MMLU (at chance) and HumanEval pass@1 (at zero)." in words[SCORES]
    assert (
        "GSM8K 6.0 and 4.5, behind by 1.5 points [0.5, 2.5]; CommonsenseQA 30.0 and 30.4, level (+0.4" in words[SCORES]
    )
    assert "full fine-tuning on 6 (0.0200); behind LoRA: HydraLoRA on 6 (0.0100)" in words[SINGLE]
    assert "of 24 pairs of an ID-LoRA and a LoRA, ID-LoRA is ahead in 9 and behind in 15." in words[SWEEPS]
    assert "At r=32, k = 4 (1.12M) is ahead of k = 2 (1.10M) by 0.0010 [0.0002, 0.0018]; level" in words[SWEEPS]
    assert "(60 runs), a lower loss goes with a higher score on GSM8K (-1.00 [-1.00, -1.00])" in words[WORTH]
    assert "length (120 runs), a lower loss goes with a higher score on GSM8K (-1.00" in words[WORTH]
    assert "picks are ahead of rows at random by 0.0042 [0.0034, 0.0050]" in words[CONTROLS]
    assert "135M parameters, SmolLM2-135M-Instruct (from 4 bits), trained for 200 steps with 3 seeds" in words[LIMITS]


OTHER_WAY = {
    "real": {
        "ahead": ("lora_equal", *ROWS, "idlora_gaussian"),
        "level": ("idlora_random",),
        "losses": {BEST: {"idlora": 1.08, "dora": 1.0935}},
        "scores": {BEST: {"gsm8k": {"idlora": 8.0, "fft": 6.2, "hydralora": 6.2}}},
        "sources": {("llama3_full", "loss_gsm8k"): {"idlora": 1.06}},
        "runs": {"llama3_full": 2},
        "follows": {"gsm8k": 0, "mmlu": 1},
    },
    "single": {"losses": {BEST: {"idlora": 0.7}}, "scores": {BEST: {"gsm8k": {"idlora": 8.0}}}},
    "budgets": {"idlora": 0.8495},
    "clusters": {"idlora_half_k8": 0.86},
}
FEW_SEEDS = {
    "real": {"losses": {PAPER: {"idlora": 1.2501}}, "floors": {}, "scores": {BEST: {"mmlu": {"idlora": 99.0}}}},
    "single": {"seeds": 2, "split": ("idlora",)},
    "budgets": {"seeds": 2, "split": ("lora_half",)},
}
REFUSING = {
    "real": {"losses": {PAPER: {"idlora": 1.3}}, "runs": {"llama3_2_3b": 1}},
    "single": {"scores": {BEST: {"refusal": {"idlora": 60.0}, "harmless": {"hydralora": 5.0}}}},
    "budgets": {"idlora_double": 0.83},
}


@pytest.mark.parametrize(
    ("story", "parts"),
    [
        (
            OTHER_WAY,
            {
                "Who is ahead": [
                    "level with LoRA: DoRA (+0.0005 [",
                    "and ID-LoRA by 0.0140 [",
                    "behind ID-LoRA by 0.0114",
                ],
                RATE: ["does not decide which of ID-LoRA"],
                LONGER: ["ahead on GSM8K rows held out by 0.0100 [", "All methods", "(2 seeds, intervals too narrow)"],
                SCORES: ["GSM8K 6.0 and 8.0, ahead by 2.0 points [1.0, 3.0]", "All others are level with LoRA. At"],
                SINGLE: ["and ID-LoRA on 6 (0.0100); behind", "in 4 scores ahead of LoRA: ID-LoRA on 1 (4.0 points)"],
                SWEEPS: ["trains 1.83M (0.8500). Only ID-LoRA of 1.84M is level", "behind k = 8 (1.16M) by 0.0060"],
                WORTH: ["lower score on MMLU (+1.00 [+1.00, +1.00], at chance); nothing can be told on GSM8K ("],
                CONTROLS: [
                    "level with rows at random (-0.0042 [",
                    "frozen Gaussian A by 0.0043",
                    "behind rows in order",
                ],
            },
        ),
        (
            FEW_SEEDS,
            {
                RATE: ["decides whether one of ID-LoRA"],
                SCORES: ["MMLU 25.3 and 99.0, ahead"],
                SINGLE: ["(2 seeds, intervals too narrow)", "behind LoRA: HydraLoRA on 6 (0.0100); otherwise level"],
                SWEEPS: ["(2 to 3 seeds, intervals too narrow)", "ahead in 9, level in 4 and behind in 11"],
            },
        ),
        (
            REFUSING,
            {
                "Who is ahead": ["(one run each, intervals over items alone)"],
                SINGLE: ["HydraLoRA 80.0 and 5.0 (behind)", "60.0 (behind) and 1.0", "own answers 70.0 and 0.5; Base"],
                SWEEPS: ["No LoRA is level with or ahead of the best ID-LoRA (0.8300", "Only ID-LoRA of 2.47M is"],
                CONTROLS: ["As frozen bases (one run each, intervals over items alone), the rows"],
            },
        ),
        ({"budgets": dict.fromkeys(IDLORAS, 0.8)}, {SWEEPS: ["Every ID-LoRA is level with or ahead"]}),
    ],
    ids=["the other way", "few seeds", "refusing", "few parameters"],
)
def test_with_other_numbers_the_sentences_come_out_otherwise(story: dict, parts: dict[str, list[str]], make) -> None:
    words = make(**story)
    assert {title: [part for part in own if part not in words[title]] for title, own in parts.items()} == {
        title: [] for title in parts
    }


def test_nothing_is_claimed_on_a_column_at_chance_or_zero(make) -> None:
    far = {column: {"idlora": 99.0} for column in MULTI}
    words = make(real={"scores": {BEST: far, PAPER: far}, "floors": dict.fromkeys(MULTI, "zero")})[SCORES]
    assert words.endswith("on GSM8K, MMLU, CommonsenseQA, HumanEval pass@1, pass@5 and pass@10 (at zero).")


def test_the_verdict_and_its_table_follow_the_tables(make, results: Path, tmp_path: Path) -> None:
    experiments = results.parent / "experiments"
    words = verdict(results, experiments)
    assert words.startswith("On SmolLM2-135M-Instruct, ID-LoRA is **behind LoRA** in held-out loss")
    assert "(1.1080 and 1.0940 nats a token with" in words
    assert "it is **ahead of LoRA**" in words
    assert "the learning rate decides which of the two is ahead" in words
    assert "ID-LoRA is behind on GSM8K by 1.5 points [0.5, 2.5]" in words
    table = summary_table(results, experiments)
    assert "| 1.6e-3 | 1.1080 ± 0.0005 | behind by 0.0140 [0.0132, 0.0148] | 1.2000 | 4.5 | 30.4 |" in table
    make(**OTHER_WAY)
    assert "ID-LoRA is **ahead of LoRA**" in verdict(tmp_path / "results", tmp_path / "experiments")


TUNED = "nats a token in held-out loss, each method at its best learning rate; at the paper's rate"
PICKED = "As frozen bases, the rows that k-means picks (PMRC) are"


@pytest.mark.parametrize(
    ("story", "parts"),
    [
        (
            {},
            {
                "card": f"**Not on SmolLM2-135M-Instruct:** LoRA is ahead by 0.0140 {TUNED} the order is reversed.",
                "rate": "**Yes.** The learning rate decides which is ahead: at the paper's 5e-5 for both ID-LoRA",
                "rows": f"**No.** {PICKED} ahead of rows at random by 0.0042",
                "budget": "No ID-LoRA is level with",
            },
        ),
        (
            OTHER_WAY,
            {
                "card": f"**Yes on SmolLM2-135M-Instruct:** ID-LoRA is ahead by 0.0140 {TUNED} ID-LoRA is ahead of",
                "rate": "**No.** The learning rate does not decide which",
                "rows": f"**No.** {PICKED} level with rows at random;",
                "budget": "Only ID-LoRA of 1.84M is level with",
            },
        ),
        (
            {"real": {"losses": {BEST: {"idlora": 1.0945}}}},
            {"card": "**Not measurably:** the two are level in held-out loss, each method at its best learning rate;"},
        ),
    ],
    ids=["as made", "the other way", "level"],
)
def test_the_short_answers_follow_the_tables(story: dict, parts: dict[str, str], make, tmp_path: Path) -> None:
    make(**story)
    answers = short_answers(Facts(tmp_path / "results", tmp_path / "experiments"))
    assert {name: answers[name][: len(words)] for name, words in parts.items()} == parts


def test_a_reference_that_lacks_a_table_says_nothing(make, tmp_path: Path) -> None:
    make()
    folder = tmp_path / "results" / "reference" / "small"
    change_rates(tmp_path / "results", "idlora", largest_eigenvalue="")
    assert "Where training starts" not in by_title(tmp_path / "results")[RATE]
    (folder / "tables" / "table8.csv").unlink()
    assert by_title(tmp_path / "results") == {}
    assert verdict(tmp_path / "results", tmp_path / "experiments") == ""
    assert write_real(tmp_path / "results", tmp_path / "experiments") is None


def test_the_sentence_about_claims_counts_the_audits_verdicts(make, tmp_path: Path) -> None:
    words = make(real={"scores": {BEST: {"gsm8k": {"idlora": 6.0}}}})["The paper's claims"]
    found = read_on_real_model(tmp_path / "experiments", tmp_path / "results")
    verdicts = [each.found for each in found]
    counts = [len(found), *map(verdicts.count, ("holds", "does not hold", "not resolved here"))]
    total, held, failed, unresolved, own, own_held, level, by_loss, by_score, at_paper, in_loss = map(
        int, re.findall(r"\b(\d+)\b", words)
    )
    assert [total, held, failed, unresolved] == counts
    assert total == by_loss + by_score >= own > own_held >= level > 0
    assert 0 < at_paper <= failed
    assert 0 < in_loss <= unresolved


def test_the_sentences_are_the_first_words_of_a_page_and_of_the_references_folder(make, tmp_path: Path) -> None:
    make()
    results, experiments = tmp_path / "results", tmp_path / "experiments"
    page = build_page(Sources(results, experiments, "tiny"))
    assert (
        page.index('id="card-real"') < page.index('<section id="real"') < page.index("<strong>Who is ahead.</strong>")
    )
    spent = {"device": "gpu", "cores": None, "runs": 4, "timed": 4, "work_seconds": 360.0, "wall_seconds": 120.0}
    write_json(results / "reference" / "small" / "provenance.json", {"time": [spent]})
    written = write_real(results, experiments).read_text(encoding="utf-8")
    assert all(f"- {sentence}\n" in written for sentence in real_sentences(results, experiments))
    assert "4 runs on gpu took 2.0 minutes of wall time" in written
