"""Learning rates: table and figure say what the trials of one model say, and a page shows held-out losses alone."""

import csv
import math
import shutil
from pathlib import Path

import pytest
from made_rates import EXPERIMENT, GRID, LONGER, MAIN, STORY, UNTUNED, loss_at, make_sharpness, make_trials
from made_results import make_results, write
from matplotlib.colors import to_hex
from test_figures import drawn

from idlora.report.figures import FIGURES, Absent, Sources, draw_figures
from idlora.report.figures.palette import look
from idlora.report.figures.rates import find_rates
from idlora.report.page import build_page
from idlora.report.rates import COLUMNS, rate_rows, spelled


@pytest.fixture
def small(repository: Path, tmp_path: Path) -> Sources:
    """The small scale as a search of learning rates leaves it."""
    shutil.copytree(repository / "experiments", tmp_path / "experiments")
    sources = Sources(tmp_path / "results", tmp_path / "experiments", "small")
    make_trials(sources.experiments)
    make_sharpness(sources.sharpness)
    write(sources.own / "tables" / "table_controls.csv", [{"method": "base", "loss": UNTUNED}])
    return sources


def table(sources: Sources) -> dict[str, dict[str, str]]:
    draw_figures(sources, "rates")
    with (sources.own / "tables" / "rates.csv").open(encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_the_table_has_each_methods_best_rate_the_papers_and_what_explains_them(small: Sources) -> None:
    rows = table(small)
    assert list(rows)[:6] == list(MAIN)
    own = rows["idlora"]
    assert tuple(own) == COLUMNS
    best, lowest, paper, trained, norm = STORY["idlora"]
    assert (float(own["best_rate"]), float(own["paper_rate"])) == (best, 5e-5)
    assert [float(own[name]) for name in ("loss_best", "loss_paper")] == [lowest, paper]
    assert float(own["loss_best_difference"]) == pytest.approx(lowest - STORY["lora"][1])
    assert float(own["loss_paper_difference"]) == pytest.approx(paper - STORY["lora"][2])
    assert (own["near_lowest"], own["near_highest"]) == ("0.0008", "0.0016")
    assert (int(own["parameters_trainable"]), float(own["a_row_norm"])) == (trained, norm)
    assert (float(own["longer_best"]), float(own["longer_paper"]), own["longer_steps"]) == (*LONGER["idlora"], "1,900")
    assert float(own["largest_eigenvalue"]) == pytest.approx(10 * norm**2)
    assert rows["idlora_inner"]["largest_eigenvalue"] == "", "it was not found to the tolerance"
    assert rows["lora"]["loss_best_difference"] == rows["fft"]["a_row_norm"] == rows["dora"]["longer_best"] == ""
    assert "| ID-LoRA | 1,840,000 | 1.6e-3 | 8e-4 to 1.6e-3 | 1.1080 | +0.0140 | 1.2000 | -0.0500 |" in (
        small.own / "tables" / "rates.md"
    ).read_text(encoding="utf-8")


def test_the_validation_loss_chooses_the_rate_whatever_the_held_out_loss_says(small: Sources) -> None:
    path = small.experiments / "tuning" / "small" / "trials.csv"
    trials = list(csv.DictReader(path.open(encoding="utf-8")))
    for row in trials:
        if (row["method"], row["learning_rate"]) == ("idlora", "0.0004"):
            row["validation_loss"] = "0.5"
    write(path, trials)
    row = table(small)["idlora"]
    assert float(row["best_rate"]) == 4e-4
    assert float(row["loss_best"]) == pytest.approx(loss_at("idlora", 4e-4), abs=1e-6)


def test_a_best_rate_at_the_end_of_what_was_tried_is_marked_and_a_diverged_run_is_no_best(small: Sources) -> None:
    folder = small.experiments / "tuning" / "small"
    trials = list(csv.DictReader((folder / "trials.csv").open(encoding="utf-8")))
    kept = [row for row in trials if row["method"] != "fft" or float(row["learning_rate"]) <= 1e-4]
    lost = {"learning_rate": "3e-5", "outcome": "diverged", "validation_loss": "inf", "heldout_loss": "inf"}
    write(folder / "trials.csv", [*kept, next(row for row in kept if row["method"] == "fft") | lost])
    rows = table(small)
    assert (rows["fft"]["at_edge"], rows["lora"]["at_edge"]) == ("yes", "")
    assert "1e-4 ↔" in (small.own / "tables" / "rates.md").read_text(encoding="utf-8")
    assert float(rows["fft"]["near_lowest"]) == 1e-4


def test_a_curve_is_drawn_through_its_runs_those_that_diverged_at_the_upper_edge(small: Sources) -> None:
    whole, near, late, controls, names = drawn(FIGURES["rates"](small)).axes
    lines = [line for line in whole.lines if line.get_color() == look("lora").colour]
    (curve,) = (line for line in lines if len(line.get_xdata()) > 1)
    done = [rate for rate in sorted({*GRID, 4e-3}) if math.isfinite(loss_at("lora", rate))]
    assert list(curve.get_xdata()) == pytest.approx(done)
    assert list(curve.get_ydata()) == pytest.approx([loss_at("lora", rate) for rate in done])
    crosses = [float(line.get_xdata()[0]) for line in lines if line.get_marker() == "x"]
    assert crosses == pytest.approx([rate for rate in GRID if math.isinf(loss_at("lora", rate))])
    hollow = [line for line in lines if to_hex(line.get_markerfacecolor()) == "#ffffff"]
    assert [float(line.get_xdata()[0]) for line in hollow] == [4e-3]
    assert whole.get_ylim()[1] == UNTUNED
    assert near.get_ylim()[1] < 1.2
    assert all(any(list(line.get_xdata()) == [5e-5] * 2 for line in axes.lines) for axes in (whole, near, late))
    assert [text.get_text()[:6] for text in names.get_legend().get_texts()] == sorted(
        f"{loss:.4f}" for method, (_, loss, *_) in STORY.items() if method not in MAIN or method == "idlora"
    )
    assert len(controls.lines) > 2 * (len(STORY) - len(MAIN))


def test_trials_without_a_held_out_loss_are_drawn_as_what_they_are_and_stand_on_no_page(
    repository: Path, tmp_path: Path
) -> None:
    sources = Sources(*make_results(repository, tmp_path), "tiny")
    plate = FIGURES["rates"](sources)
    assert plate.title.startswith("Validation loss")
    assert "no held-out loss" in plate.caption
    assert "after 1,900" not in plate.caption
    assert 'id="rates"' not in build_page(sources)
    make_trials(sources.experiments, scale="tiny")
    draw_figures(sources, "rates")
    page = build_page(sources)
    assert page.index('<section id="rates"') < page.index('<section id="table1"')
    assert 'id="figure-rates"' in page
    assert "loss at the best" in page


def test_methods_of_other_models_share_no_panel(repository: Path, tmp_path: Path) -> None:
    rates = find_rates(Sources(tmp_path, repository / "experiments", "tiny"))
    assert "lora" in rates.curves
    assert "fft" not in rates.curves, "at the embedded scale it is trained on other bases than the controls"
    assert not {"idlora_k2", "idlora_k8"} & set(rates.curves), "steps of a sweep are no controls"
    assert all(row["best_rate"] for row in rate_rows(rates))


def test_without_trials_of_the_controls_model_the_command_that_makes_them_is_named(small: Sources) -> None:
    path = small.experiments / "tuning" / "small" / "trials.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(EXPERIMENT, "gsm8k_llama3"), encoding="utf-8")
    with pytest.raises(Absent, match=r"a trial of multitask_llama3_2_3b.*`make tune SCALE=small` makes it"):
        FIGURES["rates"](small)


def test_a_rate_is_spelled_as_it_is_read() -> None:
    assert [spelled(rate) for rate in (5e-5, 0.0016, 0.004, 0.0128, 1.0)] == [
        "5e-5",
        "1.6e-3",
        "4e-3",
        "1.28e-2",
        "1e0",
    ]


def test_what_another_experiment_trains_alike_is_of_one_curve_and_what_it_trains_otherwise_is_not(
    small: Sources,
) -> None:
    path = small.experiments / "tuning" / "small" / "trials.csv"
    trials = list(csv.DictReader(path.open(encoding="utf-8")))
    shared = {"experiment": "multitask_llama3", "method": "lora", "setting": "of lora", "learning_rate": "3e-5"}
    other = shared | {"setting": "of fewer steps", "learning_rate": "7e-5", "heldout_loss": "0.5"}
    elsewhere = shared | {"experiment": "gsm8k_llama3", "learning_rate": "9e-5", "steps": "100"}
    write(path, [*trials, *(trials[0] | each for each in (shared, other, elsewhere))])
    rates = find_rates(small)
    assert [trial.rate for trial in rates.curves["lora"].trials][:2] == [3e-5, 5e-5]
    assert not {7e-5, 9e-5} & {trial.rate for trial in rates.curves["lora"].trials}
    assert rates.steps == "200"
