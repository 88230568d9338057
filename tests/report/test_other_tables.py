"""What the tables after the first have of their own: pairs with a reference each, a protocol, no paper, one base."""

import csv
import dataclasses

import numpy as np
import pytest

from reproduction.report import build_table, load_grid, markdown, write_table
from reproduction.report.significance import compare_all

ONES = np.ones((5, 1), dtype=int)


@pytest.fixture
def made(world, repository):
    def make(table):
        grid = load_grid(repository / "experiments" / table)
        return world(grid=grid, name=table).fill()

    return make


def test_pairs_are_tested_against_their_own_partner_and_their_orderings_are_shown(made):
    world = made("table7")
    table = build_table(world.grid, world.root, scale="tiny")
    assert {(each.method, each.reference) for each in table.comparisons} == set(world.grid.pairs())
    assert all(each.family_size == 4 * 6 for each in table.comparisons)
    shown = markdown(table)
    assert "| Pebble | ID-LoRA r=4 vs LoRA r=1 |" in shown
    assert "ID-LoRA r=24 of LoRA r=6" in shown
    assert "| LLaMA-3-8B | ID-LoRA r=256 |" in shown
    differences = shown.split("## Differences")[1].split("## ")[0]
    assert "ID-LoRA r=24" in differences
    assert "| LoRA r=6" not in differences


def test_the_rows_of_table_7_have_their_counts(made, tmp_path):
    world = made("table7")
    path = next(each for each in write_table(build_table(world.grid, world.root, scale="tiny"), tmp_path))
    rows = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
    counts = {row["method"]: row["parameters_trainable"] for row in rows}
    assert (counts["base"], counts["lora"], counts["idlora"]) == ("0", "12000", "7000")
    assert "| LoRA r=6 | 12,000 |" in path.read_text()


def test_a_table_that_the_paper_lacks_has_no_block_of_it_and_no_orderings(made):
    world = made("table_controls")
    table = build_table(world.grid, world.root, scale="tiny")
    shown = markdown(table)
    assert table.orderings == []
    assert "## The paper's numbers" not in shown
    assert "## Orderings" not in shown
    assert "## Differences from ID-LoRA" in shown
    assert "Gravel is a small model of this project" in shown
    assert {each.reference for each in table.comparisons} == {"idlora"}
    assert "beside the paper's" not in markdown(build_table(world.grid, world.root, scale="paper")).split("|")[0]


def test_a_column_that_the_paper_does_not_print_is_not_in_its_block(made):
    world = made("table8")
    shown = markdown(build_table(world.grid, world.root, scale="tiny"))
    block = shown.split("## The paper's numbers")[1].split("## ")[0]
    assert "# params" not in block
    assert "| LLaMA-3.2-3B | k = 6 | 39.6 | 46.9 |" in block
    assert "| Gravel | k = 4 vs k = 2 |" in shown


def test_a_column_shows_the_protocol_that_it_names_and_else_the_first(world, few):
    other = dataclasses.replace(few.columns[0], protocol="5shot")
    for columns, value in ((few.columns[:1], 100.0), ((other,), 0.0)):
        grid = dataclasses.replace(few, columns=columns, experiments=("gsm8k_llama3",), methods=("lora", "idlora"))
        made = world(grid=grid, name=f"protocols {value}")
        for method in grid.methods:
            run = made.run("gsm8k_llama3", method, benchmarks=[])
            made.evaluate(run, "gsm8k", ONES, protocol={"name": "0shot"})
            made.evaluate(run, "gsm8k", 0 * ONES, digest="feedbeef", protocol={"name": "5shot"})
        names = {("gsm8k", "0shot"): "gsm8k-0badcafe", ("gsm8k", "5shot"): "gsm8k-feedbeef"}
        table = build_table(grid, made.root, scale="tiny", evaluations=names)
        assert [row.entries["gsm8k"].value for row in table.rows] == [value, value]
    table = build_table(grid, made.root, scale="tiny")  # the name alone finds it too
    assert table.rows[0].entries["gsm8k"].value == 0.0
    gone = build_table(grid, made.root, scale="tiny", evaluations={("gsm8k", "0shot"): "gsm8k-0badcafe"})
    assert {each.reason for each in gone.missing} == {"not evaluated on gsm8k under 5shot"}


def test_a_multiple_choice_column_takes_the_score_that_its_protocol_gives(made):
    filled = made("table3")
    comparisons = compare_all(build_table(filled.grid, filled.root, scale="tiny").filled)
    assert {each.metric for each in comparisons if each.column == "mmlu"} == {"acc"}
