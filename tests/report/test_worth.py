"""Score against loss: one point per run, consistent with the tables, and intervals that resample methods."""

import csv
import json
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import write
from matplotlib.axes import Axes
from scipy import stats
from test_figures import drawn

from reproduction.palette import look
from reproduction.paths import EXPERIMENTS
from reproduction.report import load_grid
from reproduction.report.collect import COLUMNS
from reproduction.report.figures import FIGURES, Absent, Sources, draw_figures
from reproduction.report.figures.worth import find_panels, write_worth_tables
from reproduction.report.page.results import figure_with_table
from reproduction.report.worth import FEWEST, associated, points_of

SOURCES = ("alpaca", "codealpaca", "gsm8k", "gsm8k_test", "humaneval")
METHODS = tuple(method for method in load_grid(EXPERIMENTS / "table2").methods if method != "base")
UNTUNED_LOSS = 4.0


def loss_of(method: str, seed: int) -> float:
    return 1 + 0.1 * METHODS.index(method) + 0.01 * seed


def score_of(loss: float) -> float:
    return 200 - 100 * loss


def row(run: str, benchmark: str, protocol: str, metric: str, value: float) -> dict[str, Any]:
    model, _, method, *seed = run.split("-")
    names = {"scale": "small", "run": run, "model": model, "model_label": model.title(), "method": method}
    names |= {"method_label": method.upper(), "seed": seed[0] if seed else "", "status": "done"}
    names |= {"benchmark": benchmark, "metric": metric, "value": value, "ci_low": value - 1, "ci_high": value + 1}
    return dict.fromkeys(COLUMNS, "") | names | {"protocol": f"{benchmark}-{protocol}", "protocol_name": protocol}


def losses(run: str, mean: float) -> list[dict[str, Any]]:
    """Return every source's loss; the sources differ, so that a single one is not the mean."""
    shifts = np.linspace(-0.2, 0.2, len(SOURCES))
    return [
        row(run, "heldout", source, "nats_per_token", mean + shift)
        for source, shift in zip(SOURCES, shifts, strict=True)
    ]


def made_rows() -> list[dict[str, Any]]:
    """Return runs whose GSM8K falls by 1 point per 0.01 nats, the untuned base, and one trained on a single task."""
    rows = []
    for method, seed in product(METHODS, (0, 1)):
        run, loss = f"smol-multitask-{method}-{seed}", loss_of(method, seed)
        rows += losses(run, loss)
        rows += [row(run, "gsm8k", "0shot", "strict", score_of(loss)), row(run, "gsm8k", "0shot", "flexible", 12)]
    base = "smol--base"
    rows += [*losses(base, UNTUNED_LOSS), row(base, "gsm8k", "0shot", "strict", 3)]
    single = "smol-gsm8k-lora-7"
    rows += [*losses(single, 0.5)[2:4], row(single, "gsm8k", "0shot", "strict", 77)]
    return [*rows, dict.fromkeys(COLUMNS, "") | {"run": "smol-multitask-lora-9", "status": "oom"}]


@pytest.fixture
def small(repository: Path, tmp_path: Path) -> Sources:
    write(tmp_path / "results" / "small" / "metrics.csv", made_rows())
    return Sources(tmp_path / "results", repository / "experiments", "small")


def add(sources: Sources, *rows: dict[str, Any]) -> None:
    write(sources.own / "metrics.csv", [*made_rows(), *rows])


def marks(axes: Axes, method: str, marker: str | None = None) -> set[tuple[float, float]]:
    found = set()
    for line in axes.lines:
        if (line.get_color(), line.get_marker()) == (look(method).colour, marker or look(method).marker):
            found |= {(round(float(x), 9), round(float(y), 9)) for x, y in zip(*line.get_data(), strict=True)}
    return found


def test_a_point_is_a_run_with_every_source_of_the_mean_loss(small: Sources) -> None:
    (panel,) = find_panels(small)
    found = {(point.method, point.seed): point for point in panel.points}
    assert set(found) == {("base", ""), *product(METHODS, "01")}, "not the run on a single task, nor the one that ended"
    assert found["dora", "1"].loss == pytest.approx(loss_of("dora", 1))
    strict = score_of(loss_of("dora", 1))
    assert found["dora", "1"].scores == {"gsm8k": pytest.approx((strict, strict - 1, strict + 1))}


def test_of_several_protocols_the_tables_is_shown_or_else_that_of_the_most_runs(small: Sources) -> None:
    others = [row(f"smol-multitask-{method}-0", "gsm8k", "8shot", "strict", 7) for method in METHODS[:3]]
    lone = "smol-multitask-vera-0"
    add(small, *others, *losses(lone, 1.0), row(lone, "gsm8k", "8shot", "strict", 7))
    (panel,) = find_panels(small)
    assert 7 not in {point.scores["gsm8k"][0] for point in panel.points}
    assert "vera" not in {point.method for point in panel.points}
    columns = {column.id: column for column in small.grid("table2").columns_at("small")}
    made = {("gsm8k", "8shot"): "gsm8k-8shot", ("gsm8k", "0shot"): "gsm8k-0shot"}
    rows = list(csv.DictReader((small.own / "metrics.csv").open(encoding="utf-8")))
    points = points_of(rows, [columns["gsm8k"]], columns["loss"], scale="small", experiments={}, evaluations=[{}, made])
    assert {point.method: point.scores["gsm8k"][0] for point in points if point.scores} == dict.fromkeys(
        (*METHODS[:3], "vera"), 7
    )


def config_of(experiment: str) -> dict:
    parts = {"model": {}, "method": {"kind": "peft"}, "data": {}, "train": {}, "seed": 0}
    return {"experiment": experiment, "scale": "small", **parts}


def test_of_a_reference_the_points_are_those_of_its_tables(repository: Path) -> None:
    tiny = Sources(repository / "results", repository / "experiments", "tiny", reference=True)
    values, experiments = defaultdict(list), defaultdict(set)
    for panel in find_panels(tiny):
        for point in panel.points:
            values[point.model_label, point.method, panel.column.id].append(point.scores[panel.column.id][0])
            values[point.model_label, point.method, "loss"].append(point.loss)
            experiments[point.model].add(point.experiment)
    columns = ("loss", "gsm8k", "mmlu", "commonsenseqa", "pass@1", "pass@5", "pass@10")
    for table in ("table2", "table_controls"):
        for line in tiny.table(table):
            for column in columns:
                mean = np.mean(values[line["base_label"], line["method"], column])
                assert float(line[column]) == pytest.approx(mean, abs=0.051 if column != "loss" else 0.000051)
    assert experiments["gravel"] == {"multitask_llama3_2_3b", ""}


def test_rank_correlation_and_slope_are_those_of_the_runs() -> None:
    x, y = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5), (30.0, 31.0, 20.0, 22.0, 9.0, 10.0)
    found = associated(x, y, tuple("abcdef"))
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.slope == pytest.approx(stats.theilslopes(y, x).slope * 0.01)
    assert found.rho_interval[0] <= found.rho <= found.rho_interval[1] < 0
    assert found.slope_interval[0] < found.slope < found.slope_interval[1] < 0


def test_more_seeds_of_the_same_methods_make_no_interval_narrower() -> None:
    x, y = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5), (30.0, 31.0, 20.0, 22.0, 9.0, 19.0)
    once, thrice = associated(x, y, METHODS), associated(x * 3, y * 3, METHODS * 3)
    assert thrice.rho_interval == pytest.approx(once.rho_interval)
    assert associated(x * 3, y * 3, tuple("abcdefghijklmnopqr")).rho_interval[1] < once.rho_interval[1] - 0.05


def test_where_all_scores_are_the_same_or_methods_are_few_no_more_is_said_than_is_known() -> None:
    x = tuple(np.linspace(1, 2, FEWEST).tolist())
    flat = associated(x, (0.0,) * FEWEST, METHODS[:FEWEST])
    assert (flat.rho, flat.slope, flat.rho_text) == (None, 0, "—")
    few = associated(x, x, ("lora",) * 2 + METHODS[: FEWEST - 2])
    assert (few.rho, few.rho_interval, few.slope_interval) == (pytest.approx(1), None, None)
    assert associated((1.0,), (2.0,), ("lora",)).slope is None


def test_a_panel_shows_every_run_and_an_untuned_base_far_off_at_its_edge(small: Sources) -> None:
    plate = FIGURES["worth"](small)
    axes, *rest = drawn(plate).axes
    assert not [each for each in rest if each.get_visible()]
    expected = {(round(loss_of("dora", seed), 9), round(score_of(loss_of("dora", seed)), 9)) for seed in (0, 1)}
    assert marks(axes, "dora") == expected
    ((x, y),) = marks(axes, "base", "*")
    assert y == 3
    assert max(map(loss_of, METHODS, (1,) * 6)) < x < axes.get_xlim()[1] < UNTUNED_LOSS
    assert "4.00 →" in {text.get_text() for text in axes.texts}
    assert "ρ = -1.00 [-1.00, -1.00], n = 12" in axes.get_title("left")
    bars = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 2]
    assert bars[0][:2] == pytest.approx([score_of(loss_of("fft", 0)) - 1, score_of(loss_of("fft", 0)) + 1])


def test_runs_at_another_rate_or_longer_are_told_and_shown_apart(small: Sources) -> None:
    """The usual runs' scores rise with the loss; two others are so far off that over all runs they fall."""
    usual = [f"smol-multitask-{method}-0" for method in METHODS]
    others = {"multitask_llama3_paper_rate": "smol-multitask-dora-8", "multitask_llama3_full": "smol-multitask-lora-8"}
    experiments = dict.fromkeys(usual, "multitask_llama3") | {run: name for name, run in others.items()}
    at = {run: (1 + step / 100, 40 + step) for step, run in enumerate(usual)}
    at |= {others["multitask_llama3_paper_rate"]: (3.0, 5.0), others["multitask_llama3_full"]: (0.5, 80.0)}
    rows = [[*losses(run, loss), row(run, "gsm8k", "0shot", "strict", score)] for run, (loss, score) in at.items()]
    write(small.own / "metrics.csv", [each for own in rows for each in own])
    for run, experiment in experiments.items():
        folder = small.own / "runs" / run
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config_of(experiment)))

    write_worth_tables(small)
    lines = (small.own / "tables" / "worth.md").read_text(encoding="utf-8").splitlines()
    told_in = [[cell.strip() for cell in line.split("|")[2:7]] for line in lines if line.startswith("| Smol |")]
    pooled = stats.spearmanr(*zip(*at.values(), strict=True)).statistic
    assert [cells[:4] for cells in told_in] == [
        ["GSM8K", "same training", "6", "6"], ["GSM8K", "all runs", "8", "6"],
    ]  # fmt: skip
    assert (told_in[0][4][:5], told_in[1][4][:5]) == ("+1.00", f"{pooled:+.2f}")
    assert pooled < 0

    own, everything = [each for each in drawn(FIGURES["worth"](small)).axes if each.get_visible()]
    assert "ρ = +1.00" in own.get_title("left")
    assert f"ρ = {pooled:+.2f}" in everything.get_title("left")
    assert own.get_xlim()[1] - own.get_xlim()[0] < 0.1 < 2 < everything.get_xlim()[1]
    hollow = [line for line in everything.lines if line.get_markerfacecolor() == "none"]
    found = sorted((float(*line.get_xdata()), float(*line.get_ydata())) for line in hollow)
    assert found == [pytest.approx(at[run]) for run in sorted(others.values(), key=lambda run: at[run])]
    assert not [line for line in own.lines if line.get_markerfacecolor() == "none"]
    (legend,) = own.figure.figure.subfigs[-1].legends
    assert legend.get_texts()[-1].get_text() == "hollow: at another rate, or longer"


def test_the_tables_beside_the_figure_have_a_row_a_run_and_a_row_a_panel(small: Sources) -> None:
    big = [each for run in ("big-multitask-lora-0", "big-multitask-lora-1") for each in losses(run, 2.0)]
    scores = [row(f"big-multitask-lora-{seed}", "mmlu", "own", "acc", 40) for seed in (0, 1)]
    add(small, *big, *scores, row("smol--base", "mmlu", "own", "acc", 25))  # the last one is in no panel
    panels = [(panel.model, panel.column.id, len(panel.trained)) for panel in find_panels(small)]
    assert panels == [("big", "mmlu", 2), ("smol", "gsm8k", 12)], "a model has panels of its own"
    written, absent = draw_figures(small, "worth")
    assert [path.name for path in written] == ["worth.png", "worth.pdf", "worth.csv", "worth.md"]
    assert not absent
    runs = list(csv.DictReader((small.own / "tables" / "worth.csv").open(encoding="utf-8")))
    assert len(runs) == 13 + 2
    own = next(each for each in runs if each["run"] == "smol-multitask-lora-1")
    assert (float(own["loss"]), float(own["gsm8k"])) == pytest.approx((1.11, 89))
    assert (float(own["gsm8k_ci_low"]), float(own["gsm8k_ci_high"])) == pytest.approx((88, 90))
    line = "| Smol | GSM8K | 12 | 6 | -1.00 [-1.00, -1.00] | -1.00 [-1.00, -1.00] | 1.0000 to 1.5100 | 49.0 to 100.0 |"
    assert line in (small.own / "tables" / "worth.md").read_text(encoding="utf-8")


def test_a_page_has_the_figure_and_its_table_and_none_where_no_run_has_a_score(small: Sources) -> None:
    write_worth_tables(small)
    (folded,) = figure_with_table(small, "worth")
    drawn, table = folded["blocks"]
    assert (drawn["kind"], table["kind"]) == ("picture", "details")
    assert "rank correlation with the loss" in table["blocks"][0]["html"]
    write(small.own / "metrics.csv", [each for each in made_rows() if each["benchmark"] != "gsm8k"])
    assert figure_with_table(small, "worth") == []
    with pytest.raises(Absent, match=r"results/small/metrics\.csv .*`make table2 SCALE=small`"):
        FIGURES["worth"](small)
