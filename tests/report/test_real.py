"""What a real model says: every sentence and every verdict is the tables', and comes out the other way with them."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from made_rates import make_real, make_sharpness, make_trials
from made_results import make_results, write

from idlora.report.audit import AuditError, audit, judge_all, totals, write_audit
from idlora.report.audit.claims import FAILS, HOLDS, UNMEASURED, UNRESOLVED
from idlora.report.figures import Sources, draw_figures
from idlora.report.page import build_page
from idlora.report.real import AHEAD, BEHIND, LEVEL, real_sentences, write_real

ROWS = ("idlora_random", "idlora_serial", "idlora_pivoted_qr", "idlora_smallest_norm", "idlora_largest_norm")


@pytest.fixture
def experiments(repository: Path, tmp_path: Path) -> Path:
    experiments = Path(shutil.copytree(repository / "experiments", tmp_path / "experiments"))
    make_trials(experiments)
    return experiments


def make(experiments: Path, **story) -> Path:
    """results/ with a reference of the small scale whose methods stand as the story has it."""
    results = experiments.parent / "results"
    shutil.rmtree(results, ignore_errors=True)
    make_real(results, **story)
    sources = Sources(results, experiments, "small", reference=True)
    make_sharpness(sources.sharpness)
    draw_figures(sources, "rates")
    return results


def change_rates(results: Path, method: str, **values: str) -> None:
    path = results / "reference" / "small" / "tables" / "rates.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    write(path, [row | values if row["method"] == method else row for row in rows])


def test_five_sentences_say_who_is_ahead_with_the_tables_numbers(experiments: Path) -> None:
    best, rate, rows, directions, limits = real_sentences(make(experiments))
    assert "LoRA (3.05M trained) 1.0940 ± 0.0005" in best
    assert "ID-LoRA (1.84M trained) 1.1080 ± 0.0005" in best
    assert "LoRA is ahead of ID-LoRA by 0.0140 [0.0132, 0.0148]" in best
    assert "LoRA at an equal count is ahead of ID-LoRA by 0.0114" in best
    assert "5e-5 ID-LoRA is ahead of LoRA by 0.0500 after 200 steps and by 0.0120 after 1,900 steps;" in rate
    assert "(1.6e-3 and 4e-3) LoRA is ahead of ID-LoRA by 0.0140 after 200 steps and by 0.0180 after 1,900" in rate
    assert "the learning rate decides who is ahead" in rate
    assert "eigenvalue over what is trained is 270 for ID-LoRA and 3.36 for LoRA, whose rows of A are 0.58 long" in rate
    assert "where the frozen ones are 5.2." in rate
    assert "picks are ahead of rows at random by 0.0042 [0.0034, 0.0050]" in rows
    assert BEHIND not in rows
    assert "rows are behind frozen Gaussian A by 0.0043" in directions
    assert "it at the same count by 0.0016 [0.0008, 0.0024]" in directions
    assert "one model of 135M parameters, SmolLM2-135M-Instruct (from 4 bits), 200 steps" in limits
    assert "200 steps, 3 seeds" in limits
    assert "no evidence about the paper" in limits


def test_with_other_numbers_each_sentence_comes_out_the_other_way(experiments: Path) -> None:
    results = make(
        experiments, ahead=("lora", "lora_equal", *ROWS, "idlora_gaussian"), level=("idlora_random", "idlora_no_rb")
    )
    change_rates(results, "idlora", loss_best="1.08", longer_best="1.0705", largest_eigenvalue="")
    best, rate, rows, directions, _ = real_sentences(results)
    assert "LoRA is behind ID-LoRA by 0.0140" in best
    assert (
        "(1.6e-3 and 4e-3) ID-LoRA is ahead of LoRA by 0.0140 after 200 steps and ID-LoRA and LoRA are level (" in rate
    )
    assert "the learning rate does not decide who is ahead" in rate
    assert "Where training starts" not in rate
    assert f"picks are {LEVEL} rows at random (-0.0042 [-0.0094, +0.0010]); {BEHIND} rows in order by" in rows
    assert f"rows are {AHEAD} frozen Gaussian A by 0.0043" in directions
    assert f"{LEVEL} the same method without it at the same count (-0.0016 [" in directions


def test_what_was_not_measured_is_not_said(experiments: Path) -> None:
    results = make(experiments)
    folder = results / "reference" / "small"
    (folder / "tables" / "rates.csv").unlink()
    path = folder / "significance" / "table_controls.csv"
    write(path, [row for row in csv.DictReader(path.open()) if row["method"] not in ROWS])
    said = real_sentences(results)
    assert [re.match(r"\*\*(.*?)\.\*\*", sentence)[1] for sentence in said] == [
        "Who is ahead", "Whether they have to be rows", "What it is not",
    ]  # fmt: skip
    shutil.rmtree(folder)
    assert real_sentences(results) == []
    assert write_real(results) is None


def test_the_sentences_are_the_first_words_of_a_page_and_of_the_references_folder(
    repository: Path, experiments: Path, tmp_path: Path
) -> None:
    (results, _) = make_results(repository, tmp_path / "own")
    sources = Sources(results, experiments, "tiny")
    assert "On a real model" not in build_page(sources)
    shutil.copytree(make(experiments) / "reference", results / "reference")
    page = build_page(sources)
    assert page.index("On a real model") < page.index("The audit</h3>")
    assert "<strong>Who is ahead.</strong> At each method" in page
    written = write_real(results).read_text(encoding="utf-8")
    assert all(f"- {sentence}\n" in written for sentence in real_sentences(results))


def real_verdicts(experiments: Path, results: Path) -> dict[str, tuple[str, str]]:
    judged = judge_all(experiments, results, scale="tiny")
    return {each.id: (each.real_verdict, each.real) for each in judged if each.real_verdict}


def test_a_claim_is_decided_on_a_real_model_by_intervals(experiments: Path) -> None:
    found = real_verdicts(experiments, make(experiments, level=("idlora_serial",)))
    assert found["intro-lora-level"][0] == FAILS
    assert found["pmrc-outperforms"] == (
        UNRESOLVED,
        "ahead of rows at random and in order on every source; 10 pairs: 5 as claimed, 5 not resolved",
    )
    assert found["single-match-or-outperform"][0] == UNMEASURED
    assert found["setup-identical-hyperparameters"][0] == FAILS
    results = make(experiments, ahead=("lora", "lora_equal", "idlora_no_rb"))
    for method in ("lora", "dora", "hydralora"):
        change_rates(results, method, best_rate="0.0016")
    found = real_verdicts(experiments, results)
    for claim in ("intro-lora-level", "pmrc-outperforms", "rb-consistent-gains", "setup-identical-hyperparameters"):
        assert found[claim][0] == HOLDS, claim
    assert found["rb-not-on-math"][0] == FAILS


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
    shutil.copytree(make(experiments) / "reference", results / "reference")
    page, said = written()
    claims = re.search(r'<table id="claims".*?</table>', page, re.DOTALL)[0]
    assert '<th scope="col">on a real model</th>' in claims
    assert claims.count("<td>") == 5 * claims.count("<tr ")
    assert re.search(r"On a real model, by held-out loss, for \d+ of them: \d hold, \d+ do not hold, 0 are not", said)
    assert "does not hold (ahead of LoRA alone" in (results / "audit" / "audit.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "expression",
    ['lc["idlora", "loss"] < 1', 'lc["idlora", "loss"] < lc["lora", "loss_alpaca"]', 'lc["idlora", "loss"]'],
)
def test_a_loss_is_compared_with_a_loss_of_its_own_column_alone(expression: str, experiments: Path) -> None:
    results = make(experiments)
    path = experiments / "audit" / "claims.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('all(lc["idlora", c] <= lc["lora", c] for c in losses)', expression), encoding="utf-8")
    with pytest.raises(AuditError, match="claim intro-lora-level"):
        judge_all(experiments, results, scale="tiny")
