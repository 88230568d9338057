"""Tables with two blocks of one model that differ in training, and parts with fewer seeds or none."""

import csv
import dataclasses

import numpy as np
import pytest
from made_results import make_results

from reproduction.report import GridError, load_grid, markdown, summary, write_table
from reproduction.report.figures import FIGURES, Absent, Sources, draw_figures
from reproduction.report.page.results import table_blocks

MODEL = "SmolLM2-135M-Instruct"
BLOCK = "llama3_paper_rate"
NAMES = {
    "llama3": f"{MODEL}, each method at its best learning rate",
    BLOCK: f"{MODEL}, every method at 5e-5, the paper's learning rate",
}


@pytest.fixture
def fewer(repository):
    """The project's Table 2 at the small scale with three seeds: its two blocks, few methods, two benchmarks."""
    grid = load_grid(repository / "experiments" / "table2").at("small").showing(["gsm8k", "mmlu"], "small")
    grid = dataclasses.replace(grid, methods=("base", "lora", "dora", "idlora"), seeds=(0, 1, 2))
    return lambda **own: dataclasses.replace(grid, fewer=own)


@pytest.fixture
def filled(world, fewer):
    """The table with exactly its cells run, each evaluated on its benchmarks; each block has its own runs."""

    def make(name="runs", seeds=(0, 1, 2), **own):
        made = world(scale="small", grid=dataclasses.replace(fewer(), seeds=seeds, fewer=own), name=name)
        made.config = lambda experiment, *key, **changes: type(made).config(
            made, experiment, *key, train={"learning_rate": 5e-5 if experiment.endswith("rate") else 1e-3}, **changes
        )
        for experiment, method, seed in made.grid.cells():
            benchmarks = made.grid.benchmarks(experiment, "small", seed=seed)
            made.run(experiment, method, seed=seed, benchmarks=benchmarks)
        return made

    return make


def test_blocks_of_one_model_are_named_tested_and_have_their_best_values_apart(filled, tmp_path):
    table = filled(seeds=(0,)).table()
    paths = {path.name: path.read_text() for path in write_table(table, tmp_path)}
    rows = list(csv.DictReader(paths["table2.csv"].splitlines()))
    assert [row["base_label"] for row in rows] == [name for name in NAMES.values() for _ in table.grid.methods]
    words = summary(table.filled, table.comparisons)
    for base, name in NAMES.items():
        assert f"| {name} | ID-LoRA |" in paths["table2.md"]
        assert f"\\textit{{{name}}}" in paths["table2.tex"]
        assert name in words
        assert any(row.entries["gsm8k"].best for row in table.rows if row.base == base)
    differences = {(each.base, each.method, each.column): each.difference for each in table.comparisons}
    assert differences["llama3", "idlora", "gsm8k"] != differences[BLOCK, "idlora", "gsm8k"]
    assert len({cell.runs for key, cell in table.filled.cells.items() if key[1] == "base"}) == 1
    ahead = {
        base: [(each.ahead, each.behind) for each in table.orderings if (each.base, each.column) == (base, "gsm8k")]
        for base in NAMES
    }
    assert ahead["llama3"] == ahead[BLOCK] != []  # a block `like` another has that one's numbers of the paper
    assert paths["table2.md"].count("| LLaMA-3-8B | ID-LoRA |") == 1


def test_on_the_page_and_in_the_figure_two_blocks_of_one_model_stay_apart(repository, tmp_path):
    sources = Sources(*make_results(repository, tmp_path, scale="small"), "small")
    beside = table_blocks(sources, "table2")[-1]["blocks"][0]["blocks"]
    ours, *_, paper = (block["groups"] for block in beside)
    assert {name: len(rows) for name, rows in ours.items()} == dict.fromkeys(NAMES.values(), 7)
    assert {name: len(rows) for name, rows in paper.items()} == {"LLaMA-3-8B": 6}, "the paper's own block, once"
    with FIGURES["table2"](sources).drawn() as figure:
        _, *parts = figure.subfigs
        assert [part.get_suptitle().replace("\n", " ") for part in parts] == list(NAMES.values())


def test_a_table_without_cells_at_a_scale_has_no_figure_there_and_is_refused_by_name(repository, tmp_path):
    places = make_results(repository, tmp_path)
    with pytest.raises(GridError, match=r"table_longer has no cells at scale=tiny: .* kind of scale small"):
        draw_figures(Sources(*places, "tiny"), "table_longer")
    with pytest.raises(Absent, match="`make table_longer SCALE=small` makes it"):
        FIGURES["table_longer"](Sources(*places, "small"))


def test_no_cell_is_asked_for_that_no_column_needs_and_none_is_evaluated_on_more_than_its_seed_needs(fewer):
    whole = fewer().cells()
    assert len(whole) == 2 * 4 * 3
    grid = fewer(**{BLOCK: (0,), "dora": (), "gsm8k": (0, 1)})
    first = grid.experiments[0]
    assert grid.cells() == [(e, m, seed) for e, m, seed in whole if m != "dora" and (e == first or seed == 0)]
    assert grid.benchmarks(first, "small", seed=1) == grid.benchmarks(first, "small") == ["gsm8k", "mmlu"]
    assert grid.benchmarks(first, "small", seed=2) == ["mmlu"]
    assert {e for e, m, _ in fewer(**{f"{BLOCK}/dora": ()}).cells() if m == "dora"} == {first}


def test_a_value_is_the_mean_over_its_own_seeds_and_a_method_without_any_has_no_row(filled, tmp_path):
    made = filled(**{BLOCK: (0,), "dora": (), "gsm8k": (0, 1)})
    table = made.table()
    cells = table.filled.cells
    assert table.missing == []
    assert [cells[base, "lora", name].seeds for base in NAMES for name in ("gsm8k", "mmlu")] == [2, 3, 1, 1]
    means = [made.draw("multitask_llama3", "lora", "gsm8k", seed).mean() for seed in (0, 1)]
    assert cells["llama3", "lora", "gsm8k"].mean == pytest.approx(np.mean(means))
    tests = {(each.base, each.method, each.column): each.seeds for each in table.comparisons}
    assert (tests["llama3", "idlora", "gsm8k"], tests["llama3", "idlora", "mmlu"]) == (2, 3)
    rows = {(row["base"], row["method"]): row for row in csv.DictReader(write_table(table, tmp_path)[1].open())}
    assert [rows[base, "lora"]["seeds"] for base in NAMES] == ["", "1"], "empty: its columns differ"
    assert not [key for key in (*rows, *tests) if key[1] == "dora"]
    note = next(line for line in markdown(table).splitlines() if "Means ± standard deviations over 3 seeds" in line)
    assert f" {NAMES[BLOCK]}: seed 0 alone" in note
    assert note.endswith("DoRA: not run. GSM8K: seeds 0, 1 alone.")


@pytest.mark.parametrize("method", ["idlora", "lora"])
def test_two_methods_are_compared_on_the_seeds_that_both_have(filled, method):
    def compared(made):
        table = made.table()
        test = next(each for each in table.comparisons if (each.base, each.method) == ("llama3", "idlora"))
        return test, [each for each in table.orderings if each.base == "llama3" and "dora" not in vars(each).values()]

    whole = compared(filled("whole", seeds=(0, 1), **{BLOCK: ()}))
    part = compared(filled("part", **{BLOCK: (), method: (0, 1)}))
    assert part[1] == whole[1]
    for name in ("seeds", "value", "reference_value", "difference", "ci_low", "seeds_ci", "seeds_p"):
        assert getattr(part[0], name) == getattr(whole[0], name)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"qlora": (0,)}, "fewer names 'qlora', which is no base, method or benchmark of table2"),
        ({"dora/" + BLOCK: ()}, "fewer names 'dora/llama3_paper_rate'"),
        ({"dora": (1,)}, r"fewer gives dora the seeds \[1\]"),
        ({"gsm8k": (0, 1, 2)}, r"fewer gives gsm8k the seeds \[0, 1, 2\]"),
    ],
)
def test_names_and_seeds_that_the_table_has_not_are_refused(fewer, own, words):
    with pytest.raises(GridError, match=words):
        fewer(**own)
