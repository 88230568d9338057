"""The paper's orderings against ours: a direction with noise taken into account, never a difference."""

import csv
import dataclasses

import numpy as np
import pytest

from reproduction.report import build_table, markdown, write_table
from reproduction.report.ordering import VERDICTS


@pytest.fixture
def verdict(world, grid):
    """The verdict on ID-LoRA > FFT on GSM8K (63.5 against 58.8 in the paper) for outcomes of the two methods."""

    def judge(name, idlora, fft):
        column = grid.columns[0]
        narrow = dataclasses.replace(
            grid, experiments=("gsm8k_llama3",), bases={"llama3": grid.bases["llama3"]}, columns=(column,)
        )
        made = world(grid=narrow, name=name)
        for method, values in (("idlora", idlora), ("fft", fft)):
            made.evaluate(made.run("gsm8k_llama3", method, benchmarks=[]), "gsm8k", np.array(values)[:, None])
        table = build_table(narrow, made.root, scale="tiny")
        found = [each for each in table.orderings if (each.column, each.behind) == ("gsm8k", "fft")]
        return next((each.verdict, each.leaning) for each in found if each.ahead == "idlora")

    return judge


def test_each_verdict_comes_from_our_own_interval(verdict):
    strong, weak, tie = [1] * 18 + [0] * 2, [1] * 4 + [0] * 16, [0] * 2 + [1] * 18
    nearly = [1] * 17 + [0] * 3
    assert verdict("same", strong, weak) == ("same", 1)
    assert verdict("opposite", weak, strong) == ("opposite", -1)
    assert verdict("noise", strong, nearly) == ("within noise", 1)
    assert verdict("other noise", nearly, strong) == ("within noise", -1)
    assert verdict("tie", strong, tie) == ("tie here", 0)


def test_every_pair_of_the_papers_methods_is_judged_once_on_every_column(full):
    table = build_table(full.grid, full.root, scale="tiny")
    judged = {(each.base, each.column, frozenset((each.ahead, each.behind))) for each in table.orderings}
    assert len(table.orderings) == len(judged) == 2 * 6 * 10
    assert {each.verdict for each in table.orderings} <= set(VERDICTS)
    assert not any("base" in (each.ahead, each.behind) for each in table.orderings)  # the paper has no such row


def test_the_papers_own_ties_are_no_ordering(full):
    table = build_table(full.grid, full.root, scale="tiny")
    ties = {
        (each.base, each.column, frozenset((each.ahead, each.behind)))
        for each in table.orderings
        if each.verdict == "tie in the paper"
    }
    assert ("llama3", "gsm8k", frozenset(("idlora", "dora"))) in ties
    assert ("mistral", "pass@1", frozenset(("idlora", "hydralora"))) in ties
    assert len(ties) == 3


def test_parameter_shares_are_ordered_without_noise(full):
    table = build_table(full.grid, full.root, scale="tiny")
    shares = [each for each in table.orderings if each.column == "params_pct"]
    assert {each.verdict for each in shares} == {"same"}  # the synthetic counts have the paper's order
    assert "in # params alone" not in markdown(table)
    losses = build_table(full.grid.showing(["heldout"], "tiny"), full.root, scale="tiny")
    assert f"All {len(shares)} pairs of methods in # params alone: {len(shares)} same." in markdown(losses)


def test_missing_cells_are_missing_orderings(world):
    made = world()
    table = build_table(made.grid, made.root, scale="tiny")
    assert {each.verdict for each in table.orderings} == {"missing", "tie in the paper"}


def test_the_report_shows_directions_and_the_file_has_all_of_them(full, tmp_path):
    table = build_table(full.grid, full.root, scale="tiny")
    block = markdown(table).split("## Orderings")[1]
    assert block.count(" | ID-LoRA vs ") == 8
    assert "paper: tie" in block
    assert f"All {len(table.orderings)} pairs" in block
    path = next(path for path in write_table(table, tmp_path) if path.name.endswith("orderings.csv"))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == len(table.orderings)
    assert set(rows[0]) == {"base", "column", "ahead", "behind", "verdict", "leaning"}
