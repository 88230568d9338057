"""Learning rates: table and figure match the trials of one model; the page needs a trial at the paper's rate."""

import csv
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from made_rates import EXPERIMENT, GRID, HELD_OUT_BELOW, LONGER, MAIN, STORY, loss_at, make_sharpness, make_trials
from made_results import write
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from test_figures import drawn

from reproduction.palette import PAPER, look
from reproduction.report.figures import FIGURES, Absent, Sources, draw_figures, has_rates
from reproduction.report.figures.rates import find_rates
from reproduction.report.page import build_page
from reproduction.report.rates import COLUMNS


@pytest.fixture
def small(repository: Path, tmp_path: Path) -> Sources:
    """The small scale with the results of a search of learning rates."""
    shutil.copytree(repository / "experiments", tmp_path / "experiments")
    sources = Sources(tmp_path / "results", tmp_path / "experiments", "small")
    make_trials(sources.experiments)
    make_sharpness(sources.sharpness)
    return sources


def path_of(sources: Sources) -> Path:
    return sources.experiments / "tuning" / sources.scale / "trials.csv"


def trials_of(sources: Sources) -> list[dict[str, str]]:
    return list(csv.DictReader(path_of(sources).open(encoding="utf-8")))


def table(sources: Sources) -> dict[str, dict[str, str]]:
    draw_figures(sources, "rates")
    with (sources.own / "tables" / "rates.csv").open(encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def words(sources: Sources) -> str:
    return (sources.own / "tables" / "rates.md").read_text(encoding="utf-8")


def numbers(row: Mapping[str, str], *columns: str) -> list[float]:
    return [float(row[column]) for column in columns]


def test_the_table_has_each_methods_best_rate_the_papers_and_what_explains_them(small: Sources) -> None:
    rows = table(small)
    assert list(rows)[:6] == list(MAIN)
    own = rows["idlora"]
    assert tuple(own) == COLUMNS
    best, lowest, paper, trained, norm = STORY["idlora"]
    assert numbers(own, "best_rate", "loss_best", "paper_rate", "loss_paper") == [best, lowest, 5e-5, paper]
    leads = [lowest - STORY["lora"][1], paper - STORY["lora"][2]]
    assert numbers(own, "loss_best_difference", "loss_paper_difference") == pytest.approx(leads)
    assert (own["near_lowest"], own["near_highest"]) == ("0.0008", "0.0016")
    explained = numbers(own, "parameters_trainable", "a_row_norm", "first_update", "largest_eigenvalue")
    assert explained == pytest.approx([trained, norm, 0.001 * norm, 10 * norm**2])
    assert (own["steps"], own["longer_steps"]) == ("200", "1,900")
    late = numbers(own, "longer_best", "longer_paper", "longer_best_heldout", "longer_paper_heldout")
    assert late == pytest.approx([*LONGER["idlora"], *(loss - HELD_OUT_BELOW for loss in LONGER["idlora"])])
    assert rows["idlora_inner"]["largest_eigenvalue"] == "", "it was not found to the tolerance"
    assert rows["lora"]["loss_best_difference"] == rows["fft"]["a_row_norm"] == rows["dora"]["longer_best"] == ""
    assert "| ID-LoRA | 1,840,000 | 1.6e-3 | 8e-4 to 1.6e-3 | 1.1080 | +0.0140 | 1.2000 | -0.0500 |" in words(small)
    assert words(small).count(" | 0.8380 | 0.8530 |\n") == 1


def test_a_best_rate_at_the_end_of_what_was_tried_is_marked_and_a_diverged_run_is_no_best(small: Sources) -> None:
    rest = [row for row in trials_of(small) if row["method"] != "fft" or float(row["learning_rate"]) <= 1e-4]
    lost = {"learning_rate": "3e-5", "outcome": "diverged", "validation_loss": "inf"}
    write(path_of(small), [*rest, next(row for row in rest if row["method"] == "fft") | lost])
    rows = table(small)
    assert (rows["fft"]["at_edge"], rows["lora"]["at_edge"]) == ("yes", "")
    assert "| 1e-4 ↔ |" in words(small)
    assert float(rows["fft"]["near_lowest"]) == 1e-4


def own_lines(axes: Axes, method: str) -> dict[str, list[tuple[float, float]]]:
    """Return a method's curve, its hollow mark and its diverged runs, as (rate, loss)."""
    found: dict[str, list[tuple[float, float]]] = {"curve": [], "hollow": [], "diverged": []}
    for line in axes.lines:
        if (line.get_color(), line.get_marker()) in (
            (look(method).colour, look(method).marker),
            (look(method).colour, "x"),
        ):
            kind = "diverged" if line.get_marker() == "x" else "curve"
            kind = "hollow" if to_hex(line.get_markerfacecolor()) == PAPER else kind
            found[kind] += zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True)
    return found


def test_a_curve_is_drawn_through_its_runs_its_best_hollow_those_that_diverged_at_the_upper_edge(
    small: Sources,
) -> None:
    whole, near, late, controls, _ = drawn(FIGURES["rates"](small)).axes
    tried = sorted({*GRID, 4e-3})
    lora = own_lines(whole, "lora")
    assert lora["curve"] == [(rate, loss_at("lora", rate)) for rate in tried if rate < 4e-3 * 2**2.5]
    assert lora["hollow"] == [(4e-3, STORY["lora"][1])]
    assert [rate for rate, _ in lora["diverged"]] == [rate for rate in tried if math.isinf(loss_at("lora", rate))] != []
    assert own_lines(near, "lora") == lora
    assert own_lines(late, "lora")["curve"] == [(5e-5, 1.115), (4e-3, 1.07)]
    assert own_lines(late, "dora")["curve"] == []
    assert own_lines(controls, "idlora")["hollow"] == [(1.6e-3, STORY["idlora"][1])]
    assert own_lines(controls, "lora")["curve"] == []


def inside(axes: Axes, rate: float, loss: float) -> bool:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return left < rate < right and low < loss < high


def test_a_panel_shows_every_loss_at_the_papers_rate_and_the_next_ones_every_best(small: Sources) -> None:
    write(path_of(small), [
        row | ({"validation_loss": "1.9"} if (row["method"], row["learning_rate"]) == ("lora", "5e-05") else {})
        for row in trials_of(small)
    ])  # fmt: skip
    plate = FIGURES["rates"](small)
    whole, near, late, controls, names = drawn(plate).axes
    assert inside(whole, 5e-5, 1.9)
    assert all(inside(near, *STORY[method][:2]) for method in MAIN)
    assert near.get_ylim()[1] < 1.2
    others = {method: best for method, best in STORY.items() if method not in MAIN or method == "idlora"}
    assert all(inside(controls, *best[:2]) for best in others.values())
    assert controls.get_xlim()[0] > 5e-5
    labels = [text.get_text()[:6] for text in names.get_legend().get_texts()]
    assert labels == sorted(f"{loss:.4f}" for _, loss, *_ in others.values())
    assert all(any(list(line.get_xdata()) == [5e-5] * 2 for line in axes.lines) for axes in (whole, late))
    assert "(c) LoRA and ID-LoRA after 1,900 steps" in plate.caption


def test_a_page_has_the_rates_where_a_trial_has_the_papers(small: Sources) -> None:
    draw_figures(small, "rates")
    page = build_page(small)
    assert page.index('<section id="rate"') < page.index('id="figure-rates"') < page.index('<section id="rows"')
    write(path_of(small), [row for row in trials_of(small) if float(row["learning_rate"]) != 5e-5])
    assert not has_rates(small)
    path_of(small).with_name("longer.csv").unlink()
    plate = FIGURES["rates"](small)
    assert len(drawn(plate).axes) == 4
    assert "(c) ID-LoRA and its controls" in plate.caption
    path_of(small).unlink()
    assert not has_rates(small)


def test_without_trials_of_the_controls_model_the_command_that_makes_them_is_named(small: Sources) -> None:
    path = path_of(small)
    path.write_text(path.read_text(encoding="utf-8").replace(EXPERIMENT, "gsm8k_llama3"), encoding="utf-8")
    with pytest.raises(Absent, match=r"a trial of multitask_llama3_2_3b.*`make tune SCALE=small` makes it"):
        FIGURES["rates"](small)


def test_what_another_experiment_trains_alike_is_of_one_curve_and_what_it_trains_otherwise_is_not(
    small: Sources,
) -> None:
    trials = trials_of(small)
    shared = {"experiment": "multitask_llama3", "method": "lora", "setting": "of lora", "learning_rate": "3e-5"}
    other = shared | {"setting": "of fewer steps", "learning_rate": "7e-5", "trained": "1"}
    elsewhere = shared | {"experiment": "gsm8k_llama3", "learning_rate": "9e-5", "steps": "100"}
    write(path_of(small), [*(trials[0] | each for each in (other, shared, elsewhere)), *trials])
    rates = find_rates(small)
    assert [trial.rate for trial in rates.curves["lora"].trials][:2] == [3e-5, 5e-5]
    assert not {7e-5, 9e-5} & {trial.rate for trial in rates.curves["lora"].trials}
    assert (rates.steps, rates.curves["lora"].trained) == ("200", STORY["lora"][3])
