"""Markdown report and Figure 3 of benchmark.csv: same numbers as the file, without rows that do not count."""

import csv
from pathlib import Path

import pytest
from made_results import COSTS, SITUATIONS, cost, make_benchmark, write
from matplotlib.colors import to_hex
from test_figures import drawn

from reproduction.benchmark.record import COLUMNS
from reproduction.palette import PANEL, PAPER, look
from reproduction.report.costs import costs_markdown, newest, short_table, words
from reproduction.report.figures import Absent, Sources, draw_figures
from reproduction.report.figures.costs import FARTHEST, figure3

DECODE_1 = SITUATIONS[5]


@pytest.fixture
def sources(repository: Path, tmp_path: Path) -> Sources:
    make_benchmark(tmp_path / "results" / "h200")
    return Sources(tmp_path / "results", repository / "experiments", "tiny")


@pytest.fixture
def rows(sources: Sources) -> list[dict[str, str]]:
    with (sources.results / "h200" / "benchmark.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rewritten(sources: Sources, rows: list[dict[str, str]]) -> None:
    write(sources.results / "h200" / "benchmark.csv", rows)


def cells(table: str) -> dict[str, list[str]]:
    """Return Markdown rows by their first cell."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return {cells[0]: cells[1:] for cells in lines}


def marks(axes) -> list:
    return [line for line in axes.lines if line.get_marker() not in ("None", "")]


def test_the_made_rows_have_the_columns_that_the_benchmark_writes() -> None:
    assert tuple(cost(DECODE_1, "base")) == COLUMNS


def test_a_row_measured_again_counts_alone() -> None:
    twice = [cost(DECODE_1, "lora", ratio=9), cost(DECODE_1, "base"), cost(DECODE_1, "lora", ratio=2)]
    assert [(row["variant"], row["ratio"]) for row in newest(twice)] == [("lora", 2), ("base", 1.0)]


def test_the_short_table_has_the_bases_numbers_and_the_others_ratios_in_the_fullest_compilation(rows) -> None:
    small = {"adapter_file_bytes": "1048576"}  # size at the largest number of layers
    short = cells(
        short_table([row | small if row["layers"] == "8" and row["trainable"] != "0" else row for row in rows])
    )
    headings = short["Method"]
    at = headings.index("training step, 8 layers, 4 × 1024, compiled: time")
    memory = headings.index("training step, 8 layers, 4 × 1024, compiled: memory")
    assert (short["Base"][at], short["Base"][memory]) == ("50 ms", "1,000 MiB")
    assert short["Idlora"][at] == f"{COSTS['idlora'] + 0.04:.3f}"
    assert short["Lora, merged"][at] == "—"
    assert {short[name][headings.index("file, 32 layers (MiB)")] for name in ("Lora", "Idlora")} == {"2.0"}
    assert not [heading for heading in headings if "prefill" in heading and "eager" in heading]
    few = [row for row in rows if row["scenario"] != "prefill_1" or row["variant"] in ("base", "idlora")]
    headings = cells(short_table(few))["Method"]
    assert "prefill, 32 layers, 1 × 1024, eager: time" in headings
    assert "prefill, 32 layers, 1 × 1024, compiled: time" not in headings


@pytest.mark.parametrize(("status", "shown"), [("oom", "OOM"), ("failed", "failed"), ("busy", "busy")])
def test_a_row_that_is_not_done_shows_why_and_no_number(rows, status: str, shown: str) -> None:
    changed = [row | {"status": status} if row["variant"] == "dora" else row for row in rows]
    assert set(cells(short_table(changed))["Dora"][1:-1]) == {shown}
    assert "1.640" in costs_markdown(rows)
    assert "1.640" not in costs_markdown(changed)


def test_a_number_from_a_busy_machine_is_starred_and_explained(rows) -> None:
    assert "although" not in costs_markdown(rows)
    report = costs_markdown([row | {"busy": "true"} for row in rows])
    assert "1.640\\*" in report
    assert "although the machine was busy" in report


def test_a_scenario_is_named_by_all_that_sets_it_apart() -> None:
    special = cost(SITUATIONS[0], "lora", checkpointing="true", autocast="true", dropout="0.05")
    assert words(special) == "training step, 8 layers, 4 × 1024, compiled, checkpointing, autocast, dropout 0.05"


def test_extra_memory_is_above_the_base_whose_own_peak_is_shown(rows) -> None:
    report = costs_markdown(rows)
    headings = [line for line in report.splitlines() if line.startswith("## ")]
    assert len(headings) == 4, "time and memory, of training and of inference"
    shown = cells(report.split("## Inference: extra memory")[1])
    assert shown["Base"][1] == "9,100 MiB"
    assert shown["Idlora"][1] == "+6 MiB"


def test_figure_3_draws_the_ratios_of_the_file_and_the_papers_claims_in_a_tinted_panel_apart(
    sources: Sources, rows
) -> None:
    figure = drawn(figure3(sources))
    axes = {axes.get_title(loc="left"): axes for axes in figure.axes[:5]}
    assert list(axes) == ["the paper", "prefill, batch 1", "prefill, batch 16", "decode, batch 1", "decode, batch 16"]
    for heading, panel in list(axes.items())[1:]:
        phase, batch = heading.split(", batch ")
        of_panel = [row for row in rows if (row["phase"], row["batch"]) == (phase, batch) and row["variant"] != "base"]
        expected = sorted((float(row["ratio"]), row["compiled"] == "true") for row in of_panel)
        found = [(float(mark.get_xdata()[0]), to_hex(mark.get_markerfacecolor()) != PAPER) for mark in marks(panel)]
        assert sorted(found) == expected
    time, memory = figure.axes[0], figure.axes[5]
    assert to_hex(time.get_facecolor()) == to_hex(memory.get_facecolor()) == PANEL
    assert sorted(float(mark.get_xdata()[0]) for mark in marks(time)) == [1, 1, 1.005, 1.365, 1.616]
    idlora = next(mark for mark in marks(memory) if mark.get_color() == look("idlora").colour)
    assert list(idlora.get_xdata()) == [0.55]


def test_figure_3_leaves_out_busy_rows_and_fewer_layers_and_puts_far_marks_at_the_edge(sources: Sources, rows) -> None:
    fewer = cost(("decode_8", "decode", 8, 1, True), "lora", ratio=7)
    far = {("decode_1", "dora"): {"ratio": 11.1385}, ("decode_16", "dora"): {"status": "busy", "ratio": 9}}
    rewritten(sources, [*(row | far.get((row["scenario"], row["variant"]), {}) for row in rows), fewer])
    plate = figure3(sources)
    panels = drawn(plate).axes
    assert not {float(mark.get_xdata()[0]) for axes in panels for mark in marks(axes)} & {7, 9}
    assert [text.get_text() for text in panels[3].texts] == ["11.1 →"]
    assert max(float(mark.get_xdata()[0]) for mark in marks(panels[3])) == FARTHEST
    assert "11.14" in plate.alt


def test_memory_is_over_the_method_that_the_papers_claims_are_relative_to_in_the_same_compilation(
    sources: Sources, rows, tmp_path: Path
) -> None:
    claims = [
        claim | ({"relative_to": "hydralora"} if claim["quantity"] == "memory" else {})
        for claim in sources.paper("figure3")
    ]
    write(tmp_path / "experiments" / "figure3" / "paper.csv", claims)
    own = [row for row in rows if row["scenario"] == "prefill_eager_1" and row["variant"] != "base"]
    unit = next(float(row["extra_mib"]) for row in own if row["variant"] == "hydralora")
    panel = drawn(figure3(Sources(sources.results, tmp_path / "experiments", "tiny"))).axes[6]
    assert panel.get_xlabel() == "extra memory / Hydralora's"
    hollow = sorted(float(mark.get_xdata()[0]) for mark in marks(panel) if to_hex(mark.get_markerfacecolor()) == PAPER)
    assert hollow == pytest.approx(sorted(float(row["extra_mib"]) / unit for row in own))


def test_one_scenario_at_two_sizes_is_two_columns_and_two_panels(sources: Sources, rows) -> None:
    again = [row | {"length": "256", "ratio": "1.77"} for row in rows if row["scenario"] == "decode_1"]
    headings = cells(short_table([*rows, *again]))["Method"]
    assert {"decode, 32 layers, 1 × 1024, compiled: time", "decode, 32 layers, 1 × 256, compiled: time"} <= {*headings}
    rewritten(sources, [*rows, *again])
    panels = {axes.get_title(loc="left"): axes for axes in drawn(figure3(sources)).axes[:6]}
    assert {float(mark.get_xdata()[0]) for mark in marks(panels["decode, batch 1, 256 tokens"])} == {1.77}
    assert 1.77 not in {float(mark.get_xdata()[0]) for mark in marks(panels["decode, batch 1, 1024 tokens"])}


def test_figure_3_goes_beside_its_benchmark_and_names_what_makes_it(sources: Sources, rows) -> None:
    rewritten(sources, [row | {"extra_mib": "", "peak_mib": ""} for row in rows])
    assert len(drawn(figure3(sources)).axes) == 5, "without memory the time is drawn alone"
    written, absent = draw_figures(sources, "figure3")
    names = {path.relative_to(sources.results).as_posix() for path in written}
    assert (names, absent) == ({"h200/figures/figure3.png", "h200/figures/figure3.pdf"}, [])
    (sources.results / "h200" / "benchmark.csv").unlink()
    with pytest.raises(Absent, match=r"results/h200/benchmark\.csv .*`python scripts/benchmark\.py suite="):
        figure3(sources)


def test_the_papers_percentages_stand_beside_their_methods(sources: Sources) -> None:
    claims = {(claim["method"], claim["quantity"]): claim for claim in sources.paper("figure3")}
    percents = {
        ("hydralora", "time"): 36.5,
        ("moelora", "time"): 61.6,
        ("idlora", "time"): 0.5,
        ("idlora", "memory"): -45,
    }
    for (method, quantity), percent in percents.items():
        claim = claims[method, quantity]
        assert float(claim["value"]) == pytest.approx(1 + percent / 100)
        assert claim["relative_to"] == ("moelora" if quantity == "memory" else "lora")
        assert float(claims[claim["relative_to"], quantity]["value"]) == 1
