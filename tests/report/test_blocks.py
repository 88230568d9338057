"""Two blocks of one model, each trained in its way: told apart everywhere, both set against the paper's order."""

import csv
import dataclasses
from pathlib import Path

import pytest
from made_results import make_results

from reproduction.report import build_table, load_grid, markdown, summary, write_significance, write_table
from reproduction.report.figures import FIGURES, Absent, Sources, draw_figures
from reproduction.report.grid import GridError
from reproduction.report.page import build_page
from reproduction.report.page.results import result_section

MODEL = "SmolLM2-135M-Instruct"
NAMES = {
    "llama3": f"{MODEL}, each method at its best learning rate",
    "llama3_paper_rate": f"{MODEL}, every method at 5e-5, the paper's learning rate",
}
METHODS = ("base", "lora", "dora", "idlora")


@pytest.fixture(scope="module")
def table2(repository):
    """The project's Table 2 at the small scale, of one task and few methods."""
    grid = load_grid(repository / "experiments" / "table2").at("small").showing(["gsm8k"], "small")
    return dataclasses.replace(grid, methods=METHODS)


@pytest.fixture
def made(world, table2):
    made = world(scale="small", grid=table2)
    for experiment, method, seed in table2.cells():
        rate = 5e-5 if experiment.endswith("paper_rate") else 1e-3
        made.run(experiment, method, seed=seed, train={"learning_rate": rate, "epochs": 1})
    return made


def table_of(made):
    return build_table(made.grid, made.root, scale="small")


def test_a_block_is_named_after_the_model_in_table_csv_tests_and_words(made, tmp_path):
    table = table_of(made)
    write_significance(table.filled, tmp_path / "table2.csv", comparisons=table.comparisons)
    tests = list(csv.DictReader((tmp_path / "table2.csv").read_text().splitlines()))
    written = {path.name: path.read_text() for path in write_table(table, tmp_path / "tables")}
    rows = list(csv.DictReader(written["table2.csv"].splitlines()))
    assert [row["base_label"] for row in rows] == [name for name in NAMES.values() for _ in METHODS]
    assert {row["base"]: row["base_label"] for row in tests} == NAMES
    said = summary(table.filled, table.comparisons)
    for name in NAMES.values():
        assert f"| {name} | ID-LoRA |" in written["table2.md"]
        assert f"\\textit{{{name}}}" in written["table2.tex"]
        assert name in said
    caption = written["table2.md"].split("\n\n")[1]
    assert caption.startswith(f"The small scale: {MODEL} in place of LLaMA-3-8B, on")


def test_blocks_of_one_model_are_tested_and_have_their_best_values_apart(made):
    table = table_of(made)
    found = {(each.base, each.method): each.difference for each in table.comparisons if each.column == "gsm8k"}
    assert found["llama3", "idlora"] != found["llama3_paper_rate", "idlora"]
    for base in NAMES:
        assert any(row.entries["gsm8k"].best for row in table.rows if row.base == base)
    untuned = [row.entries["gsm8k"].value for row in table.rows if row.method == "base"]
    assert len(untuned) == 2
    assert len({cell.runs for key, cell in table.filled.cells.items() if key[1] == "base"}) == 1


def test_on_the_page_and_in_the_figure_two_blocks_of_one_model_stay_apart(repository, tmp_path):
    sources = Sources(*make_results(repository, tmp_path, scale="small"), "small")
    ours, *_, paper = (block["groups"] for block in result_section(sources, "table2")["blocks"][0]["blocks"])
    assert {name: len(rows) for name, rows in ours.items()} == dict.fromkeys(NAMES.values(), 7)
    assert {name: len(rows) for name, rows in paper.items()} == {"LLaMA-3-8B": 6}, "the paper's own block, once"
    with FIGURES["table2"](sources).drawn() as figure:
        _, *parts = figure.subfigs
        assert [part.get_suptitle().replace("\n", " ") for part in parts] == list(NAMES.values())


def test_a_block_like_another_is_set_against_that_ones_numbers_of_the_paper_which_are_printed_once(made):
    table = table_of(made)
    numbers = {base: {key[1:]: value for key, value in made.grid.paper.items() if key[0] == base} for base in NAMES}
    assert numbers["llama3"] == numbers["llama3_paper_rate"] != {}
    ahead = {
        base: [(each.ahead, each.behind) for each in table.orderings if (each.base, each.column) == (base, "gsm8k")]
        for base in NAMES
    }
    assert ahead["llama3"] == ahead["llama3_paper_rate"]
    assert len(ahead["llama3"]) == 3
    shown = markdown(table)
    assert shown.count("| LLaMA-3-8B | ID-LoRA |") == 1
    orderings = shown.split("## Orderings")[1]
    assert all(f"| {name} | ID-LoRA vs LoRA |" in orderings for name in NAMES.values())


def test_only_the_scale_that_has_a_block_has_its_words_and_its_numbers(repository):
    grid = load_grid(repository / "experiments" / "table2")
    assert grid.block("llama3", "small")
    assert grid.block("llama3", "tiny") == grid.block("llama3", "paper") == grid.block("mistral", "small") == ""
    assert grid.at("tiny").paper == grid.at("paper").paper == grid.paper


def test_a_table_without_cells_at_a_scale_has_no_part_of_its_page_no_figure_there_and_is_refused_by_name(
    repository: Path, tmp_path: Path
) -> None:
    places = make_results(repository, tmp_path)
    tiny = Sources(*places, "tiny")
    assert 'id="table_longer"' not in build_page(tiny)
    written, absent = draw_figures(tiny)
    assert not [each for each in (*map(str, written), *(each.what for each in absent)) if "longer" in each]
    with pytest.raises(GridError, match=r"table_longer has no cells at scale=tiny: .* kind of scale small"):
        draw_figures(tiny, "table_longer")
    small = Sources(*places, "small")
    with pytest.raises(Absent, match="`make table_longer SCALE=small` makes it"):
        FIGURES["table_longer"](small)
    assert "make table_longer SCALE=small" in build_page(small)
