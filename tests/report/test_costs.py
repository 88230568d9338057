"""benchmark.csv → its Markdown report and Figure 3: numbers as the file has them, what does not count left out."""

import csv
from pathlib import Path

import pytest
from made_results import COSTS, SITUATIONS, cost, make_benchmark, write
from matplotlib.colors import to_hex
from test_figures import drawn

from reproduction.benchmark.record import COLUMNS
from reproduction.palette import PANEL, PAPER, look
from reproduction.report.costs import costs_markdown, newest, read_costs, short_table, words
from reproduction.report.figures import Absent, Sources, draw_figures
from reproduction.report.figures.costs import FARTHEST, figure3

PREFILL_16, DECODE_1 = SITUATIONS[3], SITUATIONS[5]
YARDSTICK = "moelora"


@pytest.fixture
def sources(repository: Path, tmp_path: Path) -> Sources:
    make_benchmark(tmp_path / "results" / "h200")
    return Sources(tmp_path / "results", repository / "experiments", "tiny")


@pytest.fixture
def rows(sources: Sources) -> list[dict[str, str]]:
    return read_costs(sources.results / "h200" / "benchmark.csv")


def rewritten(sources: Sources, rows: list[dict[str, str]]) -> None:
    write(sources.results / "h200" / "benchmark.csv", rows)


def cells(table: str) -> dict[str, list[str]]:
    """Markdown rows by their first cell."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return {cells[0]: cells[1:] for cells in lines}


def marks(axes) -> list:
    return [line for line in axes.lines if line.get_marker() not in ("None", "")]


def test_the_made_rows_have_the_columns_that_the_benchmark_writes() -> None:
    assert tuple(cost(DECODE_1, "base")) == COLUMNS


def test_a_row_measured_again_counts_alone() -> None:
    twice = [cost(DECODE_1, "lora", ratio=9), cost(DECODE_1, "base"), cost(DECODE_1, "lora", ratio=2)]
    assert [(row["variant"], row["ratio"]) for row in newest(twice)] == [("lora", 2), ("base", 1.0)]


def test_the_short_table_has_the_bases_numbers_and_the_others_ratios(rows) -> None:
    short = cells(short_table(rows))
    headings = short["Method"]
    at = headings.index("training step, 8 layers, 4 × 1024, compiled: time")
    memory = headings.index("training step, 8 layers, 4 × 1024, compiled: memory")
    assert (short["Base"][at], short["Base"][memory]) == ("50 ms", "1,000 MiB")
    assert short["Idlora"][at] == f"{COSTS['idlora'] + 0.04:.3f}"
    assert short["Idlora"][headings.index("file, 32 layers (MiB)")] == "2.0"
    assert short["Lora, merged"][at] == "—"
    assert not [heading for heading in headings if "prefill" in heading and "eager" in heading]


def test_without_compiled_rows_the_eager_ones_stand_in_the_short_table(rows) -> None:
    eager = [row for row in rows if row["compiled"] == "false"]
    assert "prefill, 32 layers, 1 × 1024, eager: time" in cells(short_table(eager))["Method"]


@pytest.mark.parametrize(("status", "shown"), [("oom", "OOM"), ("failed", "failed"), ("busy", "busy")])
def test_a_row_that_is_not_done_shows_why_and_no_number(rows, status: str, shown: str) -> None:
    changed = [row | {"status": status} if row["variant"] == "dora" else row for row in rows]
    assert set(cells(short_table(changed))["Dora"][1:-1]) == {shown}
    assert "1.640" not in costs_markdown(changed)
    assert "1.640" in costs_markdown(rows)


def test_a_number_from_a_busy_machine_is_starred_and_explained(rows) -> None:
    assert "although the machine was busy" not in costs_markdown(rows)
    report = costs_markdown([row | {"busy": "true"} for row in rows])
    assert "1.640\\*" in report
    assert "although the machine was busy" in report


def test_a_scenario_is_named_by_all_that_sets_it_apart() -> None:
    special = cost(SITUATIONS[0], "lora", checkpointing="true", autocast="true", dropout="0.05")
    assert words(special) == "training step, 8 layers, 4 × 1024, compiled, checkpointing, autocast, dropout 0.05"


def test_figure_3_draws_the_ratios_of_the_file_compiled_filled_and_eager_hollow(sources: Sources, rows) -> None:
    axes = {axes.get_title(loc="left"): axes for axes in drawn(figure3(sources)).axes[:5]}
    assert list(axes) == ["the paper", "prefill, batch 1", "prefill, batch 16", "decode, batch 1", "decode, batch 16"]
    for heading, panel in list(axes.items())[1:]:
        phase, batch = heading.split(", batch ")
        of_panel = [row for row in rows if (row["phase"], row["batch"]) == (phase, batch) and row["variant"] != "base"]
        expected = sorted((float(row["ratio"]), row["compiled"] == "true") for row in of_panel)
        found = sorted(
            (float(mark.get_xdata()[0]), to_hex(mark.get_markerfacecolor()) != PAPER) for mark in marks(panel)
        )
        assert found == expected


def test_figure_3_has_the_papers_claims_in_a_tinted_panel_apart(sources: Sources) -> None:
    figure = drawn(figure3(sources))
    time, memory = figure.axes[0], figure.axes[5]
    assert to_hex(time.get_facecolor()) == to_hex(memory.get_facecolor()) == PANEL
    assert to_hex(figure.axes[1].get_facecolor()) != PANEL
    assert sorted(float(mark.get_xdata()[0]) for mark in marks(time)) == [1, 1, 1.005, 1.365, 1.616]
    idlora = next(mark for mark in marks(memory) if mark.get_color() == look("idlora").colour)
    assert list(idlora.get_xdata()) == [0.55]


def test_extra_memory_is_over_the_yardsticks_in_the_same_compilation(sources: Sources, rows) -> None:
    changed = [
        row | {"extra_mib": 80} if (row["scenario"], row["variant"]) == ("prefill_eager_1", YARDSTICK) else row
        for row in rows
    ]
    rewritten(sources, changed)
    panel = drawn(figure3(sources)).axes[6]
    hollow = sorted(float(mark.get_xdata()[0]) for mark in marks(panel) if to_hex(mark.get_markerfacecolor()) == PAPER)
    own = [
        float(row["extra_mib"]) for row in changed if row["scenario"] == "prefill_eager_1" and row["variant"] != "base"
    ]
    assert hollow == pytest.approx(sorted(value / 80 for value in own))


def test_what_was_measured_on_a_busy_machine_or_at_fewer_layers_is_not_drawn(sources: Sources, rows) -> None:
    fewer = cost(("decode_8", "decode", 8, 1, True), "lora", ratio=7)
    changed = [row | {"status": "busy", "ratio": 9} if row["variant"] == "dora" else row for row in rows]
    rewritten(sources, [*changed, fewer])
    values = {float(mark.get_xdata()[0]) for axes in drawn(figure3(sources)).axes for mark in marks(axes)}
    assert not values & {7, 9}
    assert "32 layers" in figure3(sources).title


def test_memory_is_over_the_method_that_the_papers_claims_are_relative_to(sources: Sources, tmp_path: Path) -> None:
    claims = [
        claim | {"relative_to": "hydralora"} if claim["quantity"] == "memory" else claim
        for claim in sources.paper("figure3")
    ]
    write(tmp_path / "experiments" / "figure3" / "paper.csv", claims)
    plate = figure3(Sources(sources.results, tmp_path / "experiments", "tiny"))
    figure = drawn(plate)
    assert figure.axes[6].get_xlabel() == "extra memory / Hydralora's"
    own = [mark for mark in marks(figure.axes[6]) if mark.get_color() == look("hydralora").colour]
    assert {float(mark.get_xdata()[0]) for mark in own} == {1}
    assert "Hydralora's" in plate.caption
    assert "Moelora's" not in plate.caption


def test_a_mark_far_away_stands_at_the_edge_with_its_number(sources: Sources, rows) -> None:
    changed = [
        row | {"ratio": 11.1385} if (row["scenario"], row["variant"]) == ("decode_1", "dora") else row for row in rows
    ]
    rewritten(sources, changed)
    panel = drawn(figure3(sources)).axes[3]
    assert [text.get_text() for text in panel.texts] == ["11.1 →"]
    assert max(float(mark.get_xdata()[0]) for mark in marks(panel)) == FARTHEST
    assert "Dora 11.14" in figure3(sources).alt or "Dora compiled 11.14" in figure3(sources).alt


def test_one_scenario_at_two_sizes_is_two_columns_and_two_panels(sources: Sources, rows) -> None:
    again = [row | {"length": "256", "ratio": "1.77"} for row in rows if row["scenario"] == "decode_1"]
    headings = cells(short_table([*rows, *again]))["Method"]
    assert {"decode, 32 layers, 1 × 1024, compiled: time", "decode, 32 layers, 1 × 256, compiled: time"} <= {*headings}
    rewritten(sources, [*rows, *again])
    figure = drawn(figure3(sources))
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes[:6]}
    values = {
        heading: {float(mark.get_xdata()[0]) for mark in marks(panel)}
        for heading, panel in panels.items()
        if "decode, batch 1," in heading
    }
    assert set(values) == {"decode, batch 1, 256 tokens", "decode, batch 1, 1024 tokens"}
    assert values["decode, batch 1, 256 tokens"] == {1.77}
    assert 1.77 not in values["decode, batch 1, 1024 tokens"]


def test_the_short_table_has_the_compilation_that_has_most_methods(rows) -> None:
    few = [row for row in rows if row["scenario"] != "prefill_1" or row["variant"] in ("base", "idlora")]
    headings = cells(short_table(few))["Method"]
    assert "prefill, 32 layers, 1 × 1024, eager: time" in headings
    assert "prefill, 32 layers, 1 × 1024, compiled: time" not in headings


def test_the_file_is_of_one_number_of_layers(rows) -> None:
    rows = [
        row | {"adapter_file_bytes": "1048576"} if row["layers"] == "8" and row["trainable"] != "0" else row
        for row in rows
    ]
    short = cells(short_table(rows))
    assert {short[name][-1] for name in ("Lora", "Idlora")} == {"2.0"}


def test_without_memory_the_time_is_drawn_alone(sources: Sources, rows) -> None:
    rewritten(sources, [row | {"extra_mib": "", "peak_mib": ""} for row in rows])
    assert len(drawn(figure3(sources)).axes) == 5


def test_figure_3_goes_beside_its_benchmark_and_names_what_makes_it(sources: Sources) -> None:
    written, absent = draw_figures(sources, "figure3")
    assert {path.relative_to(sources.results).as_posix() for path in written} == {
        "h200/figures/figure3.png", "h200/figures/figure3.pdf",
    }  # fmt: skip
    assert absent == []
    (sources.results / "h200" / "benchmark.csv").unlink()
    with pytest.raises(Absent, match=r"results/h200/benchmark\.csv is not there; `python scripts/benchmark\.py suite="):
        figure3(sources)


@pytest.mark.parametrize(
    ("method", "quantity", "percent", "over"),
    [
        ("hydralora", "time", 36.5, "lora"),
        ("moelora", "time", 61.6, "lora"),
        ("idlora", "time", 0.5, "lora"),
        ("idlora", "memory", -45, "moelora"),
    ],
)
def test_the_papers_percentages_stand_beside_their_methods(
    repository: Path, method: str, quantity: str, percent: float, over: str
) -> None:
    with (repository / "experiments" / "figure3" / "paper.csv").open(newline="") as file:
        claims = {(claim["method"], claim["quantity"]): claim for claim in csv.DictReader(file)}
    claim = claims[method, quantity]
    assert float(claim["value"]) == pytest.approx(1 + percent / 100)
    assert (claim["relative_to"], f"{abs(percent):g}%" in claim["printed"]) == (over, True)
    assert float(claims[over, quantity]["value"]) == 1
