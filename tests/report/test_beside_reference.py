"""The committed reference beside a user's own values: where it is comparable, as it was printed, and nowhere else."""

import csv
import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from reproduction.records import RecordError
from reproduction.report import console, gather, latex, lay_out, markdown, write_table
from reproduction.report.collect import write_csv
from reproduction.report.fullness import fuller
from reproduction.report.reference import read_reference, reference_folder, write_reference
from reproduction.report.render import wide

OTHERS = "the committed reference (`results/reference/tiny`) is of other runs"


@pytest.fixture
def seeded(few):
    """A cut of Table 1 with the seeds asked for."""
    return lambda *seeds: dataclasses.replace(few, seeds=seeds)


@pytest.fixture
def reference(world, seeded, tmp_path: Path):
    """The reference of seeds 0 and 1, as far as a table asks of it."""
    made = world(grid=seeded(0, 1), name="theirs").fill()
    folder = reference_folder(tmp_path / "results", "tiny")
    write_table(lay_out(filled(made)), folder / "tables")
    write_reference(folder, {"table1": made.made()})
    return read_reference(tmp_path / "results", "tiny")


def filled(made, **changes):
    told = dataclasses.replace(made.made(), **changes)
    return gather(made.grid, made.root, scale=made.scale, expected=told.runs, evaluations=told.evaluations)


def entries(table, column="gsm8k"):
    return {row.method: row.entries[column] for row in table.rows}


def printed(table, width=100):
    shown = io.StringIO()
    Console(file=shown, width=width).print(console(table))
    return shown.getvalue()


def test_what_was_written_is_read_back(reference, world, seeded):
    assert reference.tables == {"table1": world(grid=seeded(0, 1), name="theirs").made()}
    assert reference.scale == "tiny"


def test_the_reference_stands_beside_own_values_as_its_table_prints_it(reference, world, seeded):
    table = lay_out(filled(world(grid=seeded(0), name="own").fill()), reference)
    rows = csv.DictReader((reference.folder / "tables" / "table1.csv").open(newline=""))
    row = next(row for row in rows if row["method"] == "idlora")
    beside = f"{row['gsm8k']} ± {row['gsm8k_spread']}"
    assert entries(table)["idlora"].reference == beside
    assert re.fullmatch(r"\d+\.\d", entries(table)["base"].reference)
    assert f"; ref {beside} |" in markdown(table)
    assert f"ref {beside}" in printed(table)
    told = "ref: what the committed reference prints there (seeds 0, 1; `results/reference/tiny`)."
    assert f"\n\n## The committed reference\n\n{told}\n\n" in markdown(table)
    assert OTHERS not in markdown(table).lower()
    assert told in printed(table).replace("\n", " ")
    assert "ref " not in latex(table)


def test_a_seed_in_common_is_enough_and_one_is_needed(reference, world, seeded):
    some = lay_out(filled(world(grid=seeded(1, 2), name="some").fill()), reference)
    assert all(each.reference for each in entries(some).values())
    none = lay_out(filled(world(grid=seeded(2), name="none").fill()), reference)
    shown = entries(none)
    assert shown["idlora"].reference is None
    assert shown["base"].reference is None


def test_values_of_another_config_have_no_reference_and_a_note_says_so(reference, world, seeded):
    own = world(grid=seeded(0), name="own")
    own.config = lambda *key, **changes: type(own).config(own, *key, train={"learning_rate": 7.0}, **changes)
    table = lay_out(filled(own.fill()), reference)
    shown = entries(table)
    assert shown["lora"].reference is None
    assert shown["idlora"].reference is None
    assert shown["base"].reference is not None, "nothing about training can change an untuned base"
    assert f"Of 22 of these values {OTHERS}, by seed, settings, data or protocol" in markdown(table)
    assert "is of other runs" in printed(table).replace("\n", " ")


def test_values_of_another_evaluation_have_no_reference_and_the_other_columns_keep_theirs(reference, world, seeded):
    own = world(grid=seeded(0), name="own").fill()
    for method in own.grid.methods:
        outcomes = own.draw("gsm8k_llama3", method, "gsm8k")
        own.evaluate(own.run("gsm8k_llama3", method), "gsm8k", outcomes, digest="another")
    evaluations = own.made().evaluations | {("gsm8k", "only"): "gsm8k-another"}
    table = lay_out(filled(own, evaluations=evaluations), reference)
    assert not any(each.reference for each in entries(table).values())
    assert all(each.reference for each in entries(table, "pass@1").values())
    assert f"Of 3 of these values {OTHERS}" in markdown(table)


def test_a_table_that_the_reference_lacks_and_a_missing_cell_have_nothing_beside(reference, world, seeded):
    own = world(grid=seeded(0), name="own").fill(skip=[("gsm8k_llama3", "lora")])
    assert entries(lay_out(filled(own), reference))["lora"] is None
    without = lay_out(filled(own), dataclasses.replace(reference, tables={}))
    assert without.beside == ""
    assert entries(without)["idlora"].reference is None
    assert markdown(without) == markdown(lay_out(filled(own)))


def test_a_column_that_the_reference_was_made_without_has_nothing_beside(reference, world, seeded):
    path = reference.folder / "tables" / "table1.csv"
    rows = list(csv.DictReader(path.open(newline="")))
    write_csv(path, list(rows[0]), [row | {"gsm8k": "", "gsm8k_ci_low": ""} for row in rows])
    table = lay_out(filled(world(grid=seeded(0), name="own").fill()), reference)
    assert not any(each.reference for each in entries(table).values())
    assert all(each.reference for each in entries(table, "pass@1").values())
    assert OTHERS not in table.beside


def test_a_reference_whose_table_is_gone_is_told_in_a_sentence(reference, world, seeded):
    (reference.folder / "tables" / "table1.csv").unlink()
    with pytest.raises(RecordError, match=r"cannot read .*tables/table1\.csv"):
        lay_out(filled(world(grid=seeded(0), name="own").fill()), reference)


def test_a_file_is_fuller_by_its_values_and_their_seeds(world, seeded, tmp_path):
    def rows(*seeds, skip=()):
        made = world(grid=seeded(*seeds), name=f"{len(seeds)}{len(skip)}").fill(skip=skip)
        write_table(table := lay_out(filled(made)), tmp_path / made.root.name)
        return tmp_path / made.root.name / "table1.csv", wide(table)[1]

    (one, of_one), (two, of_two) = rows(0), rows(0, 1)
    gaps, of_gaps = rows(0, 1, skip=[("gsm8k_llama3", "lora"), ("saferpaca_llama3", "lora")])
    assert fuller(two, of_one)
    assert not fuller(one, of_two)
    assert not fuller(one, of_one)
    assert fuller(two, of_gaps)
    assert not fuller(gaps, of_two)
    assert fuller(gaps, of_one)
    assert not fuller(tmp_path / "nothing.csv", [])
