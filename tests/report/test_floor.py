"""Columns at chance or zero: no method of that model's block is called ahead, in any format of the table."""

import csv
import dataclasses
import io
import json
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from made_results import make_results, write
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from rich.console import Console

from reproduction.palette import PAPER, RC
from reproduction.report import (
    latex,
    load_grid,
    markdown,
    print_table,
    summary,
    write_significance,
    write_table,
)
from reproduction.report.figures import FIGURES, Sources
from reproduction.tinyworld.export import export

ITEMS = 100
BASES = {"llama3": "Pebble", "mistral": "Cobble"}


@pytest.fixture
def at(world, grid):
    """Make the word problems a column with this chance, from each method's number of right `ITEMS` on each base."""

    def make(chance, *, seeds=(0,), **right):
        right = {base: right.get(base, right["llama3"]) for base in BASES}
        narrow = dataclasses.replace(
            grid,
            experiments=("gsm8k_llama3", "gsm8k_mistral"),
            columns=(dataclasses.replace(grid.columns[0], chance=chance),),
            methods=("base", "lora", "dora", "idlora"),
            seeds=seeds,
        )
        made = world(grid=narrow, name=f"runs of {chance} {right} {seeds}")
        for base, methods in right.items():
            for method, counts in methods.items():
                for seed in seeds if method != "base" else seeds[:1]:
                    own = counts[seed] if isinstance(counts, tuple) else counts
                    outcomes = (np.arange(ITEMS) < own).astype(int)[:, None]
                    made.evaluate(made.run(f"gsm8k_{base}", method, seed=seed, benchmarks=[]), "gsm8k", outcomes)
        return made.table()

    return make


def marks(table, base="llama3"):
    """Return for each base's column: bold methods, methods with †, intervals with the sign, and the column's floor."""
    entries = {row.method: row.entries["gsm8k"] for row in table.rows if row.base == base}
    (floor,) = {each.floor for each in table.comparisons if each.base == base}
    return SimpleNamespace(
        best=[method for method, each in entries.items() if each.best],
        dagger=[method for method, each in entries.items() if each.dagger],
        sign=[method for method, each in entries.items() if each.floor],
        floor=floor,
    )


CLEAR = {"base": 24, "lora": 50, "dora": 60, "idlora": 90}
ONE_LOW = CLEAR | {"dora": 30}


def test_one_trained_method_at_chance_takes_bold_and_dagger_from_its_block_alone_and_p_stays(at):
    table = at(0.25, llama3=ONE_LOW, mistral=CLEAR)
    low, clear = marks(table), marks(table, "mistral")
    assert (low.best, low.dagger, low.sign, low.floor) == ([], [], ["base", "dora"], "chance")
    assert (clear.best, clear.dagger, clear.floor) == (["idlora"], ["dora", "idlora"], "")
    assert clear.sign == ["base"]  # the untuned base alone has no effect
    ps = {(each.base, each.method): each.wilcoxon_p for each in table.comparisons}
    assert ps["llama3", "idlora"] == ps["mistral", "idlora"] < 1e-6
    assert all(each.holm_p is not None for each in table.comparisons)


@pytest.mark.parametrize(
    ("seeds", "lora", "floor"),
    [((0,), 0, "zero"), ((0,), 6, ""), ((0, 1, 2), (0, 1, 0), "zero"), ((0, 1, 2), (9, 9, 9), "")],
)
def test_without_chance_a_column_is_held_at_zero(at, seeds, lora, floor):
    found = marks(at(None, seeds=seeds, llama3={"base": 0, "lora": lora, "dora": 60, "idlora": 90}))
    assert found.floor == floor
    assert (found.best, "idlora" in found.dagger) == (([], False) if floor else (["idlora"], True))


def test_chance_is_one_over_the_number_of_choices_and_losses_and_columns_beside_have_no_floor(repository, tmp_path):
    columns = {
        column.id: column
        for table in ("table1", "table2")
        for column in load_grid(repository / "experiments" / table).columns
    }
    mmlu = next((export(tmp_path) / "mmlu" / "test").glob("*.csv")).read_text().splitlines()[0]
    everyday = json.loads((tmp_path / "commonsenseqa" / "validation.jsonl").read_text().splitlines()[0])
    assert columns["mmlu"].floor == 1 / mmlu.count("choice") == 0.25
    assert columns["commonsenseqa"].floor == 1 / len(everyday["choices"]["text"]) == 0.2
    assert {columns[each].floor for each in ("gsm8k", "pass@1", "pass@5", "pass@10", "hexphi")} == {0.0}
    assert {columns[each].floor for each in ("loss", "loss_gsm8k", "over_refusal")} == {None}


def test_every_form_signs_the_interval_and_names_the_columns(at, tmp_path):
    table = at(0.25, llama3=ONE_LOW, mistral=CLEAR)
    out = io.StringIO()
    print_table(table, Console(file=out, width=200))
    assert markdown(table).count("]°") == out.getvalue().count("]°") == 3
    assert "chance (gsm8k 25 %)" in markdown(table)
    assert "Such columns here: Pebble (gsm8k)." in markdown(table)
    assert latex(table).count("$^\\circ$") >= 3
    assert latex(table).isascii()
    path = next(each for each in write_table(table, tmp_path) if each.name == "table1.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["gsm8k_floor"] for row in rows] == ["chance", "", "chance", "", "chance", "", "", ""]
    write_significance(table.filled, tmp_path / "t.csv", table.comparisons)
    tests = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert {(row["base"], row["floor"]) for row in tests} == {("llama3", "chance"), ("mistral", "")}
    (line,) = [each for each in summary(table.filled, table.comparisons).splitlines() if "called ahead" in each]
    assert line.startswith("Pebble")
    clear = at(0.25, llama3=CLEAR | {"base": 80})
    assert "°" not in markdown(clear) + latex(clear)
    assert "Such columns here: none." in markdown(at(0.25, llama3=CLEAR))


def test_an_ordering_on_such_a_column_is_none_and_is_counted_apart(at):
    table = at(0.25, llama3=ONE_LOW, mistral=CLEAR)
    verdicts = {
        base: {each.verdict for each in table.orderings if (each.base, each.column) == (base, "gsm8k")}
        for base in BASES
    }
    assert verdicts["llama3"] == {"at chance", "tie in the paper"}
    assert not {"at chance", "at zero"} & verdicts["mistral"]
    shown = markdown(table)
    assert "| paper: ahead; at chance |" in shown
    assert ", 2 at chance, " in shown
    zero = at(None, llama3={"base": 0, "lora": 0, "dora": 60, "idlora": 90})
    assert {each.verdict for each in zero.orderings if each.column == "gsm8k"} == {"at zero", "tie in the paper"}


def test_the_figure_of_differences_says_so_in_the_panel_and_fills_no_mark(repository, tmp_path):
    sources = Sources(*make_results(repository, tmp_path), "tiny")
    tests = sources.tests("table2")
    methods = len({row["method"] for row in tests}) - 1  # without the untuned base
    pebble, cobble = mmlu_panels(FIGURES["table2"](sources))
    assert "ahead" not in pebble[0] + cobble[0]
    assert cobble[1]
    held = [row | {"floor": "chance"} if (row["base"], row["column"]) == ("mistral", "mmlu") else row for row in tests]
    write(sources.own / "significance" / "table2.csv", held)
    plate = FIGURES["table2"](sources)
    assert mmlu_panels(plate) == [pebble, (f"{cobble[0]}\nat chance: no method is called ahead", 0)]
    assert f"{methods} where a trained method is at chance or zero" in plate.alt
    assert "or stands where a trained method is at chance or zero" in plate.caption


def mmlu_panels(plate):
    """Return the title of each base's panel and its number of filled marks."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=plate.size)
        FigureCanvasAgg(figure)
        plate.draw(figure)
    found = []
    for axes in figure.axes:
        if "MMLU" in (title := axes.get_title(loc="left")):
            marked = [line for line in axes.lines if line.get_marker() not in ("None", "")]
            found.append((title, sum(to_hex(line.get_markerfacecolor()) != PAPER for line in marked)))
    return found
