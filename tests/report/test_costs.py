"""benchmark.csv → its Markdown report and Figure 3: numbers as the file has them, what does not count left out."""

import csv
import json
from pathlib import Path

import pytest
from made_results import COSTS, SITUATIONS, cost, make_benchmark, write
from matplotlib.colors import to_hex
from test_figures import drawn

from idlora.benchmark.record import COLUMNS
from idlora.report.costs import costs_markdown, newest, read_costs, short_table, words
from idlora.report.figures import Absent, Sources, draw_figures
from idlora.report.figures.costs import YARDSTICK, figure3
from idlora.report.figures.palette import PAPER, look
from idlora.report.figures.style import PANEL

PREFILL_16, DECODE_1 = SITUATIONS[3], SITUATIONS[5]


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
    assert short["Idlora"][headings.index("file (MiB)")] == "2.0"
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


def test_the_papers_claims_are_words_of_the_paper(repository: Path) -> None:
    with (repository / "experiments" / "figure3" / "paper.csv").open(newline="") as file:
        claims = list(csv.DictReader(file))
    assert json.dumps(sorted({float(claim["value"]) for claim in claims})) == "[0.0, 0.55, 1.0, 1.005, 1.365, 1.616]"
    for claim in claims:
        for percent, value in (("0.5%", 1.005), ("45%", 0.55)):
            if float(claim["value"]) == value:
                assert percent in claim["printed"]
