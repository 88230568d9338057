"""A base, a benchmark or a method of a table with fewer seeds than the others, or none: asked for, shown and told."""

import csv
import dataclasses

import numpy as np
import pytest

from reproduction.report import GridError, build_table, gather, lay_out, load_grid, markdown, write_table
from reproduction.report.ordering import _difference
from reproduction.report.reference import read_reference, reference_folder, write_reference
from reproduction.report.significance import compare_all
from reproduction.report.text import ONE_RUN

BLOCK = "llama3_paper_rate"


@pytest.fixture
def fewer(repository):
    """The project's Table 2 at the small scale with three seeds: its two blocks, few methods, two benchmarks."""
    grid = load_grid(repository / "experiments" / "table2").at("small").showing(["gsm8k", "mmlu"], "small")
    grid = dataclasses.replace(grid, methods=("base", "lora", "dora", "idlora"), seeds=(0, 1, 2))
    return lambda **own: dataclasses.replace(grid, fewer=own)


@pytest.fixture
def blocks(world):
    """A small world in which the block at the paper's rate is of runs of its own."""

    def make(**own):
        made = world(scale="small", **own)
        made.config = lambda experiment, *key, **changes: type(made).config(
            made, experiment, *key, train={"learning_rate": 5e-5 if experiment.endswith("rate") else 1e-3}, **changes
        )
        return made

    return make


@pytest.fixture
def filled(blocks, fewer):
    """The table whose cells alone have run, each evaluated on what is asked of it alone."""

    def make(name="runs", **own):
        made = blocks(grid=fewer(**own), name=name)
        for experiment, method, seed in made.grid.cells():
            asked = made.grid.benchmarks(experiment, "small", seed=seed)
            made.run(experiment, method, seed=seed, benchmarks=asked)
        return made, gather(made.grid, made.root, scale="small")

    return make


def test_no_cell_is_asked_for_that_no_column_needs_and_none_is_evaluated_on_more_than_its_seed_needs(fewer):
    whole = fewer().cells()
    assert len(whole) == 2 * 4 * 3
    grid = fewer(**{BLOCK: (0,), "dora": (), "gsm8k": (0, 1)})
    first, second = grid.experiments
    asked = [(e, m, seed) for e, m, seed in whole if m != "dora" and (e == first or seed == 0)]
    assert grid.cells() == asked
    assert [grid.benchmarks(first, "small", seed=seed) for seed in (None, 1, 2)] == [
        ["gsm8k", "mmlu"], ["gsm8k", "mmlu"], ["mmlu"],
    ]  # fmt: skip
    assert grid.benchmarks(second, "small", seed=0) == ["gsm8k", "mmlu"]
    assert [key[2] for key in fewer(gsm8k=(0,), mmlu=(0, 1)).cells() if key[:2] == (first, "lora")] == [0, 1]


def test_a_value_is_the_mean_over_its_own_seeds_and_a_method_without_any_has_no_row(filled, tmp_path):
    made, found = filled(**{BLOCK: (0,), "dora": (), "gsm8k": (0, 1)})
    assert found.missing == []
    seeds = {key: cell.seeds for key, cell in found.cells.items() if key[1] == "lora"}
    assert seeds == {
        ("llama3", "lora", "gsm8k"): 2, ("llama3", "lora", "mmlu"): 3,
        (BLOCK, "lora", "gsm8k"): 1, (BLOCK, "lora", "mmlu"): 1,
    }  # fmt: skip
    cell = found.cells["llama3", "lora", "gsm8k"]
    means = [made.draw("multitask_llama3", "lora", "gsm8k", seed).mean() for seed in (0, 1)]
    assert cell.mean == pytest.approx(np.mean(means))
    assert cell.spread == pytest.approx(np.std(means, ddof=1))
    assert found.cells[BLOCK, "lora", "gsm8k"].spread is None
    tests = {(each.base, each.method, each.column): each for each in compare_all(found)}
    assert tests["llama3", "idlora", "gsm8k"].seeds == 2
    assert tests["llama3", "idlora", "mmlu"].seeds == 3
    assert tests[BLOCK, "idlora", "gsm8k"].seeds_p is None
    assert not [key for key in tests if key[1] == "dora"]
    path = next(path for path in write_table(lay_out(found), tmp_path) if path.name == "table2.csv")
    rows = {(row["base"], row["method"]): row for row in csv.DictReader(path.read_text().splitlines())}
    assert [rows[base, "lora"]["seeds"] for base in ("llama3", BLOCK)] == ["", "1"], "empty: its columns differ"
    assert not [key for key in rows if key[1] == "dora"]


def test_a_method_may_be_left_out_of_one_block_alone(filled):
    made, found = filled(**{BLOCK: (0,), f"{BLOCK}/dora": ()})
    first, second = made.grid.experiments
    assert {e for e, m, _ in made.grid.cells() if m == "dora"} == {first}
    assert {e for e, m, _ in made.grid.cells() if m == "lora"} == {first, second}
    table = lay_out(found)
    assert [row.base for row in table.rows if row.method == "dora"] == ["llama3"]
    assert f"{found.base_labels[BLOCK]}, DoRA: not run." in markdown(table)


@pytest.mark.parametrize("method", ["idlora", "lora"])
def test_two_methods_are_compared_on_the_seeds_that_both_have(filled, method):
    def difference(found):
        test = next(each for each in compare_all(found) if (each.base, each.method) == ("llama3", "idlora"))
        cells = [found.cells["llama3", name, test.column] for name in ("idlora", "lora")]
        return test.seeds, test.value, test.reference_value, test.seeds_p, _difference(*cells)

    _, whole = filled("whole", **{BLOCK: (), "gsm8k": (0, 1), "mmlu": (0, 1)})
    _, part = filled("part", **{BLOCK: (), method: (0, 1)})
    assert difference(part) == difference(whole)
    assert difference(part)[0] == 2


def test_below_the_table_stands_what_has_fewer_seeds_with_one_seed_and_with_several(filled, world, few):
    _, found = filled(**{BLOCK: (0,), "dora": (), "gsm8k": (0, 1)})
    shown = markdown(lay_out(found))
    own = f" {found.base_labels[BLOCK]}: seed 0 alone{ONE_RUN}. DoRA: not run. GSM8K: seeds 0, 1 alone."
    assert own in next(line for line in shown.splitlines() if "Means ± standard deviations over 3 seeds" in line)
    one = world(grid=dataclasses.replace(few, fewer={"idlora": ()}), name="one").fill()
    shown = markdown(build_table(one.grid, one.root, scale="tiny"))
    assert "not that two methods do. ID-LoRA: not run.\n" in shown
    assert "not that two methods do.\n" in markdown(
        build_table(dataclasses.replace(few, fewer={}), one.root, scale="tiny")
    )


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"qlora": (0,)}, "fewer names 'qlora', which is no base, method or benchmark of table2"),
        ({"dora/" + BLOCK: ()}, "fewer names 'dora/llama3_paper_rate', .* nor two of them as <base>/<method>"),
        ({"heldout": ()}, "fewer names 'heldout', which is no base"),
        ({"dora": (3,)}, r"fewer gives dora the seeds \[3\]: name the first of \[0, 1, 2\], not all, or none"),
        ({"dora": (1,)}, r"fewer gives dora the seeds \[1\]: name the first"),
        ({"gsm8k": (0, 1, 2)}, r"fewer gives gsm8k the seeds \[0, 1, 2\]: name the first of \[0, 1, 2\], not all"),
    ],
)
def test_names_and_seeds_that_the_table_has_not_are_refused(fewer, own, said):
    with pytest.raises(GridError, match=said):
        fewer(**own)


def test_the_reference_keeps_what_has_fewer_seeds_and_stands_beside_a_value_of_a_seed_that_it_has_there(
    filled, fewer, blocks, tmp_path
):
    made, found = filled("theirs", **{BLOCK: (0,), "dora": (), "gsm8k": (0, 1)})
    folder = reference_folder(tmp_path / "results", "small")
    write_table(lay_out(found), folder / "tables")
    kept = dataclasses.replace(made.made(), fewer=made.grid.fewer)
    write_reference(folder, {"table2": kept})
    reference = read_reference(tmp_path / "results", "small")
    assert reference.tables == {"table2": kept}
    assert reference.tables["table2"].cut(fewer(), scale="small") == made.grid

    def beside(*seeds, **own):
        grid = dataclasses.replace(fewer(), seeds=seeds, fewer=own)
        mine = blocks(grid=grid, name="mine" + "".join(map(str, seeds))).fill()
        told = mine.made()
        cells = gather(grid, mine.root, scale="small", expected=told.runs, evaluations=told.evaluations)
        table = lay_out(cells, reference)
        shown = {
            (row.base, row.method, name): entry.reference
            for row in table.rows
            for name, entry in row.entries.items()
            if entry
        }
        return {key for key, value in shown.items() if value}, table.beside

    trained = {(base, method) for base in ("llama3", BLOCK) for method in ("lora", "idlora")}
    shown, told = beside(0, 1, 2, gsm8k=(0,))
    assert {key for key in shown if key[:2] in trained} == {
        (*row, name) for row in trained for name in ("gsm8k", "mmlu")
    }
    assert "(seeds 0, 1, 2, some fewer; `results/reference/small`)" in told
    shown, told = beside(2)
    assert {key for key in shown if key[:2] in trained} == {("llama3", method, "mmlu") for method in ("lora", "idlora")}
    assert "is of other runs" in told
