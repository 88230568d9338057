"""Every method of a sweep against every other one in the mean held-out loss, with what both train."""

import csv
import dataclasses
from itertools import combinations

import pytest

from reproduction.report import gather, lay_out, load_grid, write_significance, write_sweep, write_table
from reproduction.report.grid import UNTUNED
from reproduction.report.standings import pair_of


@pytest.fixture
def filled(world, repository):
    """The cells of a table in which every method has run with two seeds."""

    def fill(table: str):
        grid = dataclasses.replace(load_grid(repository / "experiments" / table).at("tiny"), seeds=(0, 1))
        made = world(grid=grid, name=table).fill()
        return gather(grid, made.root, scale="tiny")

    return fill


def rows_of(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def test_table_7_has_every_pair_with_counts_and_the_verdict_of_the_interval_over_seeds(filled, tmp_path):
    cells = filled("table7")
    table, document = write_sweep(cells, tmp_path)
    rows = rows_of(table)
    trained = [method for method in cells.grid.methods if method != UNTUNED]
    pairs = {frozenset((row["method"], row["reference"])) for row in rows}
    assert pairs == set(map(frozenset, combinations(trained, 2)))
    assert len(rows) == len(pairs)
    for row in rows:
        low, high, difference = (float(row[name]) for name in ("seeds_ci_low", "seeds_ci_high", "difference"))
        ahead = int(row["seeds_ahead"])
        assert row["verdict"] == ("level" if low <= 0 <= high or ahead == 1 else "ahead" if high < 0 else "behind")
        assert ahead == 1 or ahead == (2 if difference < 0 else 0)
        assert difference == pytest.approx(float(row["value"]) - float(row["reference_value"]), abs=2e-6)
        assert row["trained"] == (
            "12000" if row["method"] == "lora" else "7000" if row["method"] == "idlora" else "10000"
        )
        assert row["method"] in cells.grid.reference or row["reference"] not in cells.grid.reference
    assert {row["verdict"] for row in rows} > {"level"}
    shown = document.read_text(encoding="utf-8")
    assert "| ID-LoRA r=12 | LoRA r=6 | 7,000 | 12,000 | " in shown
    assert shown.count("\n| ") == len(rows) + 2
    assert (
        ": 2 seeds. 95% intervals, over seeds and items where there are several seeds: with few seeds they are too"
        in shown
    )
    assert f"nothing is corrected for the number of pairs ({len(rows)})." in shown
    assert {line.split(" | ")[-2] for line in shown.splitlines()[6:]} == {f"{row['seeds_ahead']} of 2" for row in rows}


def test_a_pair_of_which_one_seed_has_the_other_one_ahead_is_level_whatever_its_interval():
    row = {"method": "a", "reference": "b", "column": "loss", "metric": "nats_per_token", "difference": "-0.01"}
    row |= {"ci_low": "-0.02", "ci_high": "-0.001", "seeds_ci_low": "-0.02", "seeds_ci_high": "-0.001", "seeds": "3"}
    pairs = {ahead: pair_of(row | {"seeds_ahead": ahead}) for ahead in ("0", "1", "2", "3")}
    assert [pair.verdict for pair in pairs.values()] == ["ahead of", "level with", "level with", "ahead of"]
    assert [pair.reversed.verdict for pair in pairs.values()] == ["behind", "level with", "level with", "behind"]
    one_run = row | {"seeds": "1", "seeds_ahead": "", "seeds_ci_low": "", "seeds_ci_high": ""}
    assert pair_of(one_run).verdict == "ahead of"


def test_a_pair_that_the_table_tests_itself_has_the_same_numbers_there(filled, tmp_path):
    cells = filled("table7")
    write_significance(cells, tmp_path / "table7.csv")
    tested = {(r["method"], r["reference"]): r for r in rows_of(tmp_path / "table7.csv") if r["column"] == "loss"}
    found = {(row["method"], row["reference"]): row for row in rows_of(write_sweep(cells, tmp_path)[0])}
    assert tested.keys() == set(cells.grid.reference.items())
    for pair, row in tested.items():
        for name in ("difference", "ci_low", "ci_high", "seeds_ci_low", "seeds_ci_high", "seeds", "metric"):
            assert found[pair][name] == row[name]


def test_clusters_have_theirs_and_other_tables_and_one_without_the_loss_have_none(filled, tmp_path):
    paths = write_sweep(filled("table8"), tmp_path)
    assert [path.name for path in paths] == ["clusters.csv", "clusters.md"]
    assert len(rows_of(paths[0])) == 6
    assert write_sweep(filled("table3"), tmp_path / "none") == []
    cells = filled("table7")
    cells.cells = {key: cell for key, cell in cells.cells.items() if key[2] != "loss"}
    assert write_sweep(cells, tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_what_known_answers_score_is_written_beside_a_table_that_has_them(filled, tmp_path):
    cells = filled("table3")
    assert not any("known" in path.name for path in write_table(lay_out(cells), tmp_path))
    known = {"always right": 1.0, "never right": 0.0}
    cells.cells = {
        key: dataclasses.replace(cell, controls=known if key[2] == "gsm8k" else {}) for key, cell in cells.cells.items()
    }
    path = write_table(lay_out(cells), tmp_path)[-1]
    assert path.name == "table3_known.csv"
    told = [(row["column"], row["answers"], float(row["value"])) for row in rows_of(path)]
    assert told == [("gsm8k", "always right", 100.0), ("gsm8k", "never right", 0.0)]
