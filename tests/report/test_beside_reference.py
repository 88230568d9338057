"""The committed reference beside a user's own values: shown as printed, and only if comparable."""

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from reproduction.records import RecordError
from reproduction.report import latex, lay_out, markdown, print_table, write_table
from reproduction.report.documents import write_csv
from reproduction.report.fullness import fuller
from reproduction.report.reference import read_reference, reference_folder, write_reference
from reproduction.report.render import wide

OTHERS = "the committed reference (`results/reference/tiny`) is of other runs"


@pytest.fixture
def made(world, few):
    """Make a small filled Table 1 of two benchmarks and the given seeds."""

    def make(*seeds, name="own", skip=(), **fewer):
        grid = few.showing(["gsm8k", "humaneval"], "tiny")
        own = world(grid=dataclasses.replace(grid, seeds=seeds, fewer=fewer), name=name + "".join(map(str, seeds)))
        return own.fill(skip=skip)

    return make


@pytest.fixture
def keep(tmp_path: Path):
    """Make a world's table the reference, as far as tables need it."""

    def keep(own):
        folder = reference_folder(tmp_path / "results", "tiny")
        write_table(own.table(), folder / "tables")
        write_reference(folder, {"table1": dataclasses.replace(own.made(), fewer=own.grid.fewer)})
        return read_reference(tmp_path / "results", "tiny")

    return keep


@pytest.fixture
def reference(made, keep):
    """The reference of seeds 0 and 1."""
    return keep(made(0, 1, name="theirs"))


def entries(table, column="gsm8k"):
    return {row.method: row.entries[column] and row.entries[column].reference for row in table.rows}


def test_the_reference_stands_beside_own_values_as_its_table_prints_it(reference, made):
    assert reference.tables == {"table1": made(0, 1, name="theirs").made()}
    table = lay_out(made(0).gather(), reference)
    rows = csv.DictReader((reference.folder / "tables" / "table1.csv").open(newline=""))
    row = next(row for row in rows if row["method"] == "idlora")
    beside = f"{row['gsm8k']} ± {row['gsm8k_spread']}"
    assert entries(table)["idlora"] == beside
    assert "±" not in entries(table)["base"]
    assert f"; ref {beside} |" in markdown(table)
    sentence = "ref: what the committed reference prints there (seeds 0, 1; `results/reference/tiny`)."
    assert f"\n\n## The committed reference\n\n{sentence}\n\n" in markdown(table)
    shown = io.StringIO()
    print_table(table, Console(file=shown, width=100))
    assert f"ref {beside}" in shown.getvalue()
    assert sentence in shown.getvalue().replace("\n", " ")
    assert "ref " not in latex(table)


def test_a_seed_in_common_is_needed_and_enough(reference, made):
    assert all(entries(lay_out(made(1, 2).gather(), reference)).values())
    none = lay_out(made(2).gather(), reference)
    assert not any(entries(none).values())
    assert OTHERS in none.beside


def test_values_of_another_config_or_evaluation_have_no_reference_and_a_note_says_so(reference, made):
    own = made(0)
    for method in own.grid.methods:
        outcomes = own.draw("gsm8k_llama3", method, "gsm8k")
        own.evaluate(own.run("gsm8k_llama3", method, benchmarks=[]), "gsm8k", outcomes, digest="another")
    evaluations = own.made().evaluations | {("gsm8k", "only"): "gsm8k-another"}
    table = lay_out(own.gather(evaluations=evaluations), reference)
    assert not any(entries(table).values())
    assert all(entries(table, "pass@1").values())
    assert f"Of 3 of these values {OTHERS}" in markdown(table)
    own.config = lambda *key, **changes: type(own).config(own, *key, train={"learning_rate": 7.0}, **changes)
    shown = entries(lay_out(own.fill().gather(), reference))
    assert (shown["lora"], shown["idlora"], bool(shown["base"])) == (None, None, True), "an untuned base stays"


def test_what_the_reference_lacks_and_a_missing_cell_have_nothing_beside(reference, made):
    own = made(0, skip=[("gsm8k_llama3", "lora")])
    assert entries(lay_out(own.gather(), reference))["lora"] is None
    without = lay_out(own.gather(), dataclasses.replace(reference, tables={}))
    assert markdown(without) == markdown(own.table())
    path = reference.folder / "tables" / "table1.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    write_csv(path, list(rows[0]), [row | {"gsm8k": "", "gsm8k_ci_low": ""} for row in rows])
    table = lay_out(own.gather(), reference)
    assert not any(entries(table).values())
    assert all(entries(table, "pass@1").values())
    assert OTHERS not in table.beside
    path.unlink()
    with pytest.raises(RecordError, match=r"tables/table1\.csv"):
        lay_out(own.gather(), reference)


def test_a_reference_with_fewer_seeds_of_a_method_stands_beside_the_seeds_that_it_has(made, keep):
    reference = keep(made(0, 1, name="theirs", idlora=(0,)))
    assert entries(lay_out(made(1).gather(), reference))["idlora"] is None
    table = lay_out(made(0).gather(), reference)
    assert all(entries(table).values())
    assert "(seeds 0, 1, some fewer; `results/reference/tiny`)" in table.beside


def test_a_file_is_fuller_by_its_values_and_their_seeds(made, tmp_path):
    def rows(own):
        write_table(table := own.table(), tmp_path / own.root.name)
        return tmp_path / own.root.name / "table1.csv", wide(table)[1]

    (one, of_one), (two, of_two) = rows(made(0)), rows(made(0, 1))
    gaps, of_gaps = rows(made(0, 1, name="gaps", skip=[("gsm8k_llama3", "lora"), ("codealpaca_llama3", "lora")]))
    assert fuller(two, of_one)
    assert not fuller(one, of_two)
    assert not fuller(one, of_one)
    assert fuller(two, of_gaps)
    assert fuller(gaps, of_one)
    assert not fuller(tmp_path / "nothing.csv", [])
