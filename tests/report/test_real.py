"""What a real model says: every sentence is the tables', and comes out the other way with them."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from made_rates import STORY, change_rates, make_real_beside, make_trials
from made_results import make_results, write

from reproduction.report.figures import Sources
from reproduction.report.page import build_page
from reproduction.report.real import AHEAD, BEHIND, LEVEL, real_sentences, write_real

ROWS = ("idlora_random", "idlora_serial", "idlora_pivoted_qr", "idlora_smallest_norm", "idlora_largest_norm")
TITLES = (
    "Who is ahead", "The learning rate", "Longer training", "Benchmarks", "What a loss difference is worth",
    "Which rows, and whether rows", "The paper's claims", "What it is not",
)  # fmt: skip


@pytest.fixture
def experiments(repository: Path, tmp_path: Path) -> Path:
    experiments = Path(shutil.copytree(repository / "experiments", tmp_path / "experiments"))
    make_trials(experiments)
    return experiments


def said_by(results: Path) -> dict[str, str]:
    """The sentences by their titles."""
    return {
        re.match(r"\*\*(.*?)\.\*\*", sentence)[1]: sentence
        for sentence in real_sentences(results, results.parent / "experiments")
    }


def keep(path: Path, **wanted: str) -> None:
    """Keep the rows of a CSV file in which none of the columns has the unwanted value."""
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    write(path, [row for row in rows if all(row[column] != value for column, value in wanted.items())])


def test_the_sentences_say_with_the_tables_numbers_who_is_ahead(experiments: Path) -> None:
    said = said_by(make_real_beside(experiments))
    assert tuple(said) == TITLES
    best, rate, longer, benchmarks, worth, rows, _, limits = said.values()
    assert "a 95 % interval over seeds and items without zero (the tables' † goes by items alone) and all seeds" in best
    assert (
        "agree; with few seeds the intervals are too narrow, and nothing is corrected for the number of pairs." in best
    )
    assert "rate (3 seeds) the held-out loss in nats a token is 1.0940 ± 0.0005 for LoRA and 1.1080" in best
    assert (
        "is 1.0940 ± 0.0005 for LoRA and 1.1080 ± 0.0005 for ID-LoRA; ahead of LoRA: full fine-tuning by 0.0090" in best
    )
    assert (
        "level with LoRA: DoRA (+0.0005 [-0.0003, +0.0013]); behind LoRA: HydraLoRA by 0.0020 [0.0012, 0.0028]" in best
    )
    assert "MoELoRA by 0.0070 [0.0062, 0.0078] and ID-LoRA by 0.0140 [0.0132, 0.0148]. LoRA trains 3.05M" in best
    assert "LoRA at an equal count (1.83M) is ahead of ID-LoRA by 0.0114 [0.0106, 0.0122]." in best
    assert (
        "The best rates are 1.6e-3 for ID-LoRA and 4e-3 for LoRA. At the paper's 5e-5 for all (one run each, intervals"
        in rate
    )
    assert "and ID-LoRA by 0.0500 [0.0492, 0.0508]; behind LoRA: MoELoRA by 0.0200" in rate
    assert "items alone) the loss is 1.2500 for LoRA" in rate
    assert "decides which of ID-LoRA and LoRA is ahead (one run each at the paper's rate)." in rate
    assert "eigenvalue over what is trained is 270 for ID-LoRA and 3.36 for LoRA, whose rows of A are 0.58 long" in rate
    assert "where the frozen ones are 5.2." in rate
    assert "All methods were trained for the paper's two epochs (one run each, intervals over items alone)." in longer
    assert "The loss is 1.0700 for LoRA and 1.0880 for ID-LoRA; ahead of LoRA: full fine-tuning" in longer
    assert "GSM8K 6.0 and 4.5, behind by 1.5 points [0.5, 2.5]; CommonsenseQA 30.0 and 30.4, level (+0.4 [" in longer
    assert "MMLU" not in longer
    assert "At the paper's 5e-5, one run each, ID-LoRA's loss is 0.0120 below LoRA's after 1,900 steps." in longer
    assert "Nobody is called ahead on MMLU (at chance) and HumanEval pass@1 (at zero)." in benchmarks
    assert "LoRA and ID-LoRA score in %: GSM8K 6.0 and 4.5, behind by 1.5 points [0.5, 2.5]; Com" in benchmarks
    assert "HumanEval pass@5 3.5 and 3.0, level (-0.5 [-1.5, +0.5]); pass@10" in benchmarks
    others = "Of the others, full fine-tuning is ahead on GSM8K; HydraLoRA is behind on GSM8K."
    assert benchmarks.count(others) == 2
    at_paper = (
        "At the paper's 5e-5 (one run each, intervals over items alone) ID-LoRA is level on CommonsenseQA (+0.4 ["
    )
    assert at_paper in benchmarks
    alike, pooled = worth.split(" Over all runs, of any rate and length ")
    assert "alone (60 runs), a lower loss goes with a higher score on GSM8K (-1.00 [-1.00, -1.00]); nothing" in alike
    assert "nothing can be told on MMLU (+" in alike
    assert ", at chance)." in alike
    assert pooled.startswith(
        "(120 runs), a lower loss goes with a higher score on GSM8K (-1.00 [-1.00, -1.00]) and MMLU"
    )
    assert "picks are ahead of rows at random by 0.0042 [0.0034, 0.0050]" in rows
    assert "behind frozen Gaussian A by 0.0043" in rows
    assert "it at the same count by 0.0016 [0.0008, 0.0024]" in rows
    assert "135M parameters, SmolLM2-135M-Instruct (from 4 bits), trained for 200 steps with 3 seeds unless" in limits
    assert "judged by held-out loss, GSM8K, MMLU, CommonsenseQA, HumanEval pass@1, pass@5 and pass@10." in limits
    assert "no evidence about the paper" in limits


def test_with_other_numbers_each_sentence_comes_out_the_other_way(experiments: Path) -> None:
    results = make_real_beside(
        experiments,
        ahead=("lora_equal", *ROWS, "idlora_gaussian"),
        level=("idlora_random", "idlora_no_rb"),
        losses={
            "llama3": {"idlora": 1.08, "dora": 1.09},
            "llama3_full": {"fft": 1.0705, "dora": 1.06, "idlora": 1.05},
        },
        scores={"llama3": {"gsm8k": {"idlora": 8.0, "fft": 6.2, "hydralora": 6.2}}},
        follows={"gsm8k": 0, "mmlu": 1},
    )
    change_rates(results, "idlora", largest_eigenvalue="", longer_paper_heldout="0.9")
    best, rate, longer, benchmarks, worth, rows, *_ = said_by(results).values()
    assert "DoRA by 0.0040 [0.0032, 0.0048] and ID-LoRA by 0.0140 [0.0132, 0.0148]; behind LoRA: HydraLoRA" in best
    assert "LoRA at an equal count (1.83M) is behind ID-LoRA by 0.0114" in best
    assert "The learning rate does not decide" in rate
    assert "Where training starts" not in rate
    assert "level with LoRA: full fine-tuning (-0.0005 [" in longer
    assert "ID-LoRA's loss is 0.0350 above LoRA's" in longer
    assert "GSM8K 6.0 and 8.0, ahead by 2.0 points [1.0, 3.0];" in benchmarks
    assert "All others are level with LoRA. At the paper's" in benchmarks
    assert "behind on GSM8K by 1.5 points [0.5, 2.5]. Of the others, full fine-tuning is ahead" in benchmarks
    alike = worth.split(" Over all runs")[0]
    assert "a lower loss goes with a lower score on MMLU (+1.00 [+1.00, +1.00], at chance); nothing" in alike
    assert "nothing can be told on GSM8K (" in alike
    assert f"rows that PMRC picks are {AHEAD} frozen Gaussian A by 0.0043" in rows
    assert f"{LEVEL} rows at random (-0.0042 [-0.0094, +0.0010]); {BEHIND} rows in order by" in rows
    assert f"{LEVEL} the same method without it at the same count (-0.0016 [" in rows


@pytest.mark.parametrize(
    ("at_paper", "says"), [(1.2, "decides which"), (1.2501, "decides whether one of"), (1.3, "does not decide which")]
)
def test_the_learning_rate_decides_where_the_two_blocks_have_another_one_ahead(
    at_paper: float, says: str, experiments: Path
) -> None:
    results = make_real_beside(experiments, losses={"llama3_paper_rate": {"idlora": at_paper}})
    assert f"The learning rate {says}" in said_by(results)["The learning rate"]


def test_each_source_stands_where_its_own_interval_puts_it(experiments: Path) -> None:
    sources = {
        ("llama3_full", "loss_alpaca"): {"idlora": 1.0695},
        ("llama3_full", "loss_gsm8k"): {"idlora": 1.06},
        ("llama3_2_3b", "loss_gsm8k"): {"idlora_random": 1.0, "idlora_no_rb": 2.0},
        ("llama3_2_3b", "loss_gsm8k_test"): {"idlora_no_rb": STORY["idlora"][1]},
    }
    said = said_by(make_real_beside(experiments, sources=sources))
    ahead = (
        "By source ID-LoRA is ahead on GSM8K rows held out by 0.0100 [0.0092, 0.0108]; level on Alpaca rows held out; "
    )
    assert f"{ahead}behind on GSM8K test answers by 0.0180 [0.0172, 0.0188], CodeAlpaca" in said["Longer training"]
    rows = said["Which rows, and whether rows"]
    assert "By source, against rows at random: ahead on GSM8K test answers, CodeAlpaca rows held out" in rows
    assert "and Alpaca rows held out; behind on GSM8K rows held out. With Rank Boosting" in rows
    assert "By source, at the same count: ahead on GSM8K rows held out; level on GSM8K test answers; behind on" in rows


def test_methods_that_were_not_trained_longer_are_not_counted(experiments: Path) -> None:
    results = make_real_beside(experiments)
    for kind in ("significance", "tables"):
        for method in ("fft", "dora", "hydralora", "moelora"):
            keep(results / "reference" / "small" / kind / "table_longer.csv", method=method)
    told = said_by(results)["Longer training"]
    assert "Only LoRA and ID-LoRA were trained for the paper's two epochs" in told
    assert "; behind LoRA: ID-LoRA by 0.0180 [0.0172, 0.0188]." in told


def test_a_block_of_other_seeds_than_the_rest_says_so_and_one_of_as_many_does_not(experiments: Path) -> None:
    said = said_by(make_real_beside(experiments, runs={"llama3_paper_rate": 3, "llama3_full": 2, "llama3_2_3b": 1}))
    assert "one run each" not in said["The learning rate"] + said["Benchmarks"]
    assert "two epochs (2 seeds, intervals too narrow)." in said["Longer training"]
    assert said["Who is ahead"].endswith(" (one run each, intervals over items alone).")
    assert (
        "As frozen bases (one run each, intervals over items alone), the rows" in said["Which rows, and whether rows"]
    )


def test_nothing_is_claimed_on_a_column_at_chance_or_zero(experiments: Path) -> None:
    far = {column: {"idlora": 99.0, "fft": 1.0} for column in ("mmlu", "pass@1", "gsm8k")}
    scores = {"llama3": far, "llama3_paper_rate": far}
    told = said_by(make_real_beside(experiments, scores=scores))["Benchmarks"]
    nobody = "Nobody is called ahead on MMLU (at chance) and HumanEval pass@1 (at zero)."
    assert nobody in told
    ahead = told.split(nobody)[1]
    assert "GSM8K 6.0 and 99.0, ahead by 93.0 points" in ahead
    assert "MMLU" not in ahead
    assert "pass@1 " not in ahead
    every = dict.fromkeys(("gsm8k", "mmlu", "commonsenseqa", "pass@1", "pass@5", "pass@10"), "zero")
    told = said_by(make_real_beside(experiments, scores=scores, floors=every))["Benchmarks"]
    assert told.endswith(
        "Nobody is called ahead on GSM8K, MMLU, CommonsenseQA, HumanEval pass@1, pass@5 and pass@10 (at zero)."
    )


def test_what_was_not_measured_is_not_said(experiments: Path) -> None:
    results = make_real_beside(experiments)
    folder = results / "reference" / "small"
    for name in ("table2", "table_longer", "worth"):
        (folder / "tables" / f"{name}.csv").unlink()
    for name in ("table2", "table_longer"):
        (folder / "significance" / f"{name}.csv").unlink()
    said = said_by(results)
    assert tuple(said) == (*TITLES[:2], *TITLES[5:])
    assert "1.1080 ± 0.0005 for ID-LoRA; behind LoRA: ID-LoRA by 0.0140 [0.0132, 0.0148]." in said["Who is ahead"]
    assert (
        "validation loss of one run a rate, at the paper's 5e-5 ID-LoRA's loss is 0.0500 below LoRA's"
        in said[TITLES[1]]
    )
    assert "and at the best ID-LoRA's loss is 0.0140 above LoRA's." in said[TITLES[1]]
    (folder / "tables" / "rates.csv").unlink()
    keep(folder / "significance" / "table_controls.csv", method="lora_equal")
    assert tuple(said_by(results)) == (TITLES[0], *TITLES[5:])
    shutil.rmtree(folder)
    assert real_sentences(results, results.parent / "experiments") == []
    assert write_real(results, experiments) is None


def test_the_sentences_are_the_first_words_of_a_page_and_of_the_references_folder(
    repository: Path, experiments: Path, tmp_path: Path
) -> None:
    (results, _) = make_results(repository, tmp_path / "own")
    sources = Sources(results, experiments, "tiny")
    assert "On a real model" not in build_page(sources)
    shutil.copytree(make_real_beside(experiments) / "reference", results / "reference")
    page = build_page(sources)
    assert page.index("On a real model") < page.index("The audit</h3>")
    assert "<strong>Who is ahead.</strong> Here and below" in page
    written = write_real(results, experiments).read_text(encoding="utf-8")
    assert all(f"- {sentence}\n" in written for sentence in real_sentences(results, results.parent / "experiments"))
