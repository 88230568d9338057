"""Table 1 from whole folders of runs: what is printed, where the marks come from, and what is never printed."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console

from reproduction.records import run_name
from reproduction.report import GridError, build_table, console, latex, markdown, write_table


def entry(table, method, column, base="llama3"):
    return next(row.entries[column] for row in table.rows if (row.base, row.method) == (base, method))


@pytest.fixture(scope="session")
def table(full):
    return build_table(full.grid, full.root, scale="tiny")


@pytest.fixture
def small(world, grid):
    """A table of the word problems on one base, from the outcomes of each method (n,) given to it."""

    def make(name="small", **outcomes):
        column = grid.columns[0]
        narrow = dataclasses.replace(
            grid, experiments=("gsm8k_llama3",), bases={"llama3": grid.bases["llama3"]}, columns=(column,)
        )
        made = world(grid=narrow, name=name)
        for method, values in outcomes.items():
            run = made.run("gsm8k_llama3", method, benchmarks=[])
            made.evaluate(run, "gsm8k", np.array(values)[:, None])
        return build_table(narrow, made.root, scale="tiny")

    return make


def test_a_full_grid_gives_twelve_rows_without_a_gap(table):
    assert len(table.rows) == 12
    assert table.missing == []
    assert all(None not in row.entries.values() for row in table.rows)
    assert [row.label for row in table.rows[:6]] == ["Base (untuned)", "FFT", "LoRA", "DoRA", "HydraLoRA", "ID-LoRA"]


def test_every_value_lies_in_its_interval(table):
    for row in table.rows:
        for each in row.entries.values():
            assert 0 <= each.low <= each.value <= each.high <= 100


def test_values_are_the_means_of_the_records(table, full):
    outcomes = full.draw("gsm8k_llama3", "idlora", "gsm8k")
    assert entry(table, "idlora", "gsm8k").value == pytest.approx(100 * outcomes.mean(), abs=0.05)
    outcomes = full.draw("codealpaca_mistral", "idlora", "humaneval")
    assert entry(table, "idlora", "pass@1", "mistral").value == pytest.approx(100 * outcomes.mean(), abs=0.05)


def test_the_paper_counts_frozen_copies_and_the_plain_share_stands_beside(table):
    row = next(row for row in table.rows if row.method == "idlora")
    assert row.params == f"{100 * 7_000 / (1_300_000 + 7_000 + 48_000):.2f}"
    assert row.params_plain == f"{100 * 7_000 / (1_300_000 + 7_000):.2f}"
    shares = {row.method: row.params for row in table.rows if row.base == "llama3"}
    assert (shares["base"], shares["fft"]) == ("0", "100")


def test_bold_goes_to_the_best_value_and_follows_it(small):
    weak, strong = [1, 0] * 10, [1, 1, 1, 0] * 5
    before = small("before", lora=weak, idlora=strong)
    after = small("after", lora=strong, idlora=weak)
    assert (entry(before, "lora", "gsm8k").best, entry(before, "idlora", "gsm8k").best) == (False, True)
    assert (entry(after, "lora", "gsm8k").best, entry(after, "idlora", "gsm8k").best) == (True, False)


def test_equal_bests_are_all_bold_and_a_column_of_equals_has_none(small):
    half, other_half = [1, 0] * 10, [0, 1] * 10
    tied = small("tied", base=[0] * 20, lora=half, idlora=other_half)
    assert [entry(tied, m, "gsm8k").best for m in ("base", "lora", "idlora")] == [False, True, True]
    alike = small("alike", lora=half, idlora=other_half)
    assert not any(entry(alike, m, "gsm8k").best for m in ("lora", "idlora"))


def test_the_dagger_needs_a_small_p_and_to_be_ahead(small):
    few = [0] * 7 + [1] * 13
    six, five = [1] * 6 + [0] + [1] * 13, [1] * 5 + [0] * 2 + [1] * 13
    daggers = {
        "six ahead": entry(small("six", lora=few, idlora=six), "idlora", "gsm8k").dagger,
        "five ahead": entry(small("five", lora=few, idlora=five), "idlora", "gsm8k").dagger,
        "six behind": entry(small("behind", lora=six, idlora=few), "idlora", "gsm8k").dagger,
    }
    assert daggers == {"six ahead": True, "five ahead": False, "six behind": False}


def test_the_reference_carries_no_dagger_and_the_column_beside_no_mark_at_all(table):
    assert not any(each.dagger for row in table.rows if row.method == "lora" for each in row.entries.values())
    assert not any(row.entries["over_refusal"].dagger or row.entries["over_refusal"].best for row in table.rows)


def test_a_missing_cell_is_a_dash_and_names_the_command_that_fills_it(world, few):
    made = world(grid=few).fill(skip=[("codealpaca_llama3", "idlora")])
    table = build_table(made.grid, made.root, scale="tiny")
    command = (
        "python scripts/table.py table=table1 scale=tiny 'experiments=[codealpaca_llama3]' 'methods=[idlora]' "
        "allow_code_execution=true"
    )
    assert [each.command for each in table.missing] == [command]
    assert entry(table, "idlora", "pass@5") is None
    assert entry(table, "idlora", "gsm8k") is not None
    shown = markdown(table)
    assert "| Pebble | ID-LoRA | 7,000 | 0.52 (0.54) | " in shown
    assert shown.count("| — |") >= 1
    assert f"`{command}`" in shown
    assert "---" in latex(table)


@pytest.mark.parametrize("state", ["oom", "failed", "interrupted"])
def test_a_run_that_is_not_done_is_never_read_as_a_result(world, few, state):
    made = world(grid=few).fill(skip=[("gsm8k_llama3", "idlora")])
    run = made.run("gsm8k_llama3", "idlora")
    assert build_table(made.grid, made.root, scale="tiny").missing == []
    status = run.folder / "status.json"
    status.write_text(status.read_text().replace('"done"', f'"{state}"').replace('"reason": ""', '"reason": "why"'))
    table = build_table(made.grid, made.root, scale="tiny")
    assert [each.reason for each in table.missing] == [f"{state}: why"]
    assert entry(table, "idlora", "gsm8k") is None


def test_an_evaluation_that_is_not_finished_is_missing(world, few):
    made = world(grid=few).fill()
    run = next(made.root.glob("pebble-gsm8k-idlora-*"))
    next(run.glob("eval/*/DONE")).unlink()
    table = build_table(made.grid, made.root, scale="tiny")
    assert [each.reason for each in table.missing] == ["not evaluated on gsm8k"]


def test_an_empty_folder_gives_a_table_of_dashes(world):
    made = world()
    table = build_table(made.grid, made.root, scale="tiny")
    assert len(table.missing) == len(made.grid.cells()) == 36
    assert all(each is None for row in table.rows for each in row.entries.values())
    assert "No cell has a value yet" in markdown(table)


def test_a_changed_config_is_never_taken_for_the_finished_cell(world, few):
    made = world(grid=few).fill()
    expected = {cell: run_name(made.config(*cell)) for cell in made.grid.cells()}
    assert build_table(made.grid, made.root, scale="tiny", expected=expected).missing == []
    changed = made.config("gsm8k_llama3", "idlora", train={"learning_rate": 5e-3, "epochs": 1})
    wanted = expected | {("gsm8k_llama3", "idlora", 0): run_name(changed)}
    table = build_table(made.grid, made.root, scale="tiny", expected=wanted)
    assert [(each.experiment, each.method, each.reason) for each in table.missing] == [
        ("gsm8k_llama3", "idlora", "never run")
    ]


def test_two_runs_for_one_cell_are_refused_unless_it_is_said_which_counts(world, few):
    made = world(grid=few).fill()
    made.run("gsm8k_llama3", "idlora", train={"learning_rate": 5e-3, "epochs": 1})
    with pytest.raises(GridError, match="2 runs answer to experiment=gsm8k_llama3 method=idlora seed=0"):
        build_table(made.grid, made.root, scale="tiny")
    expected = {cell: run_name(made.config(*cell)) for cell in made.grid.cells()}
    assert build_table(made.grid, made.root, scale="tiny", expected=expected).missing == []


def test_two_protocols_are_never_mixed(world, few):
    made = world(grid=few).fill()
    run = made.run("gsm8k_llama3", "idlora", benchmarks=[])
    made.evaluate(run, "gsm8k", made.draw("gsm8k_llama3", "idlora", "gsm8k"), digest="feedbeef")
    with pytest.raises(GridError, match="several evaluations on gsm8k"):
        build_table(made.grid, made.root, scale="tiny")
    names = {(name, "only"): f"{name}-0badcafe" for name in ("gsm8k", "humaneval", "hexphi", "hexphi_benign")}
    sources = ("gsm8k", "gsm8k_test", "codealpaca", "humaneval", "saferpaca")
    names |= {("heldout", source): f"heldout-{source}" for source in sources}
    assert build_table(made.grid, made.root, scale="tiny", evaluations=names).missing == []
    table = build_table(made.grid, made.root, scale="tiny", evaluations=names | {("gsm8k", "only"): "gsm8k-feedbeef"})
    assert len([each for each in table.missing if each.reason == "not evaluated on gsm8k"]) == 2


def test_rows_of_one_column_under_other_protocols_or_data_are_refused(world):
    made = world()
    outcomes = np.ones((5, 1), dtype=int)
    made.evaluate(made.run("gsm8k_llama3", "lora", benchmarks=[]), "gsm8k", outcomes)
    made.evaluate(made.run("gsm8k_llama3", "idlora", benchmarks=[]), "gsm8k", outcomes, data_digest="other")
    with pytest.raises(GridError, match="under other protocols or data"):
        build_table(made.grid, made.root, scale="tiny")


def test_runs_of_another_scale_fill_nothing(world, few):
    made = world(scale="paper", grid=few).fill()
    assert build_table(made.grid, made.root, scale="paper").missing == []
    assert len(build_table(made.grid, made.root, scale="tiny").missing) == 9


def test_away_from_the_papers_scale_nothing_can_be_mistaken_for_the_papers(table, tmp_path):
    above, below = markdown(table).split("## The paper's numbers")
    for word in ("LLaMA", "Mistral", "HumanEval pass", "HEx-PHI refusal"):
        assert word not in above
        assert word in below
    assert "Pebble" in above
    assert "(tinyworld, GSM8K schema)" in above
    assert "It cannot show" in above
    assert not re.search(r"paper \d", markdown(table))  # no value of the paper's beside one of ours
    assert "_difference" not in "".join(read_csv(table, tmp_path)[1])
    assert "LLaMA" not in latex(table)


def test_at_the_small_scale_other_models_do_the_papers_tasks_and_only_orderings_meet_its_numbers(world, few, tmp_path):
    made = world(scale="small", grid=few).fill()
    table = build_table(made.grid, made.root, scale="small")
    assert table.missing == []
    shown = markdown(table)
    above, below = shown.split("## The paper's numbers")
    assert "| SmolLM2-135M-Instruct, each method at its best learning rate | ID-LoRA |" in above
    assert "| LLaMA-3-8B | ID-LoRA |" in below
    assert "SmolLM2-135M-Instruct in place of LLaMA-3-8B" in above
    assert "trained for a fraction of its steps. It can show" in above
    headings = next(line for line in above.splitlines() if line.startswith("| Model"))
    assert "| GSM8K | HumanEval pass@1 |" in headings
    assert not {"tinyworld", "over_refusal", "matched benign"} & set(
        re.findall(r"tinyworld|over_refusal|matched benign", shown)
    )
    assert "## Orderings" in above + below
    assert not re.search(r"paper \d", shown)
    assert "_difference" not in "".join(read_csv(table, tmp_path)[1])


def test_what_known_answers_score_on_a_columns_items_stands_in_a_note_from_the_records(world, few) -> None:
    made = world(scale="small", grid=few)
    benchmarks = made.grid.benchmarks("saferpaca_llama3", "small")
    assert {"safety_prompts", "harmless_prompts"} <= set(benchmarks)
    for method in made.grid.methods:
        run = made.run("saferpaca_llama3", method, benchmarks=[])
        for benchmark, own in (("safety_prompts", 0.62), ("harmless_prompts", 0.02)):
            known = {"the data's own answers": own, "always refusing": 1.0}
            made.evaluate(run, benchmark, made.draw("saferpaca_llama3", method, benchmark), controls=known)
    made.run("gsm8k_llama3", "lora")  # its items have no known answers
    shown = markdown(build_table(made.grid, made.root, scale="small"))
    (line,) = [line for line in shown.splitlines() if line.startswith("- Controls")]
    assert line.count(", of the ") == line.count("of the 50 prompts: always refusing 100.0") == 2
    assert line.index("own answers 62.0") < line.index("own answers 2.0")
    assert "Saferpaca is a stand-in here" in shown
    assert "Controls" not in markdown(build_table(made.grid, made.root.parent / "nothing", scale="small"))


def test_a_small_model_that_calls_itself_by_the_papers_name_is_refused(world):
    made = world()
    made.run("gsm8k_llama3", "lora", model={"name": "pebble", "label": "LLaMA-3-8B"})
    with pytest.raises(GridError, match="is called 'LLaMA-3-8B'"):
        build_table(made.grid, made.root, scale="tiny")


def test_at_the_papers_scale_its_value_and_the_difference_stand_beside_ours(world, few, tmp_path):
    made = world(scale="paper", grid=few).fill()
    table = build_table(made.grid, made.root, scale="paper")
    ours = entry(table, "idlora", "gsm8k")
    assert (ours.paper.value, ours.paper.dagger) == (63.5, True)
    shown = markdown(table)
    assert f"paper 63.5†, {ours.value - 63.5:+.1f}" in shown
    assert "; paper 0.56" in shown
    assert "## The paper's numbers" not in shown
    assert "tinyworld" not in shown
    rows, columns = read_csv(table, tmp_path)
    assert {"gsm8k_paper", "gsm8k_difference"} <= set(columns)
    assert rows[2]["gsm8k_paper"] == "63.5"


def test_all_forms_carry_the_same_values_and_marks(table, tmp_path):
    rows, columns = read_csv(table, tmp_path)
    tex, md = latex(table), markdown(table)
    for row, line in zip(table.rows, rows, strict=True):
        each, marks = row.entries["pass@1"], (line["pass@1_best"], line["pass@1_dagger"])
        assert (line["pass@1"], marks) == (f"{each.value:.1f}", ("yes" * each.best, "yes" * each.dagger))
        bold = f"**{each.value:.1f}**" if each.best else f"{each.value:.1f}"
        assert f"{bold}{'†' * each.dagger} [{each.low:.1f}, {each.high:.1f}]" in md
        strong = f"\\textbf{{{each.value:.1f}}}" if each.best else f"{each.value:.1f}"
        mark = "$^\\dagger$" * each.dagger
        assert f"{strong}{mark} {{\\tiny [{each.low:.1f}, {each.high:.1f}]}}" in tex
    assert len(columns) == len(set(columns))


def test_the_latex_is_balanced_escaped_and_has_one_width(table):
    tex = latex(table)
    body = tex.split("\n", 1)[1]  # the first line is a comment
    assert body.count("{") == body.count("}")
    assert tex.count("\\begin") == tex.count("\\end")
    assert not re.search(r"(?<!\\)[%_#]", body.replace("tab:table1-tiny", ""))
    scores, losses = body.split("\\end{tabular}")[:2]
    for part, columns in ((scores, 6), (losses, 5)):
        rows = [line for line in part.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {2 + columns}
        assert len(rows) == 13
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert rule in tex
    assert body.isascii()


def test_the_files_repeat_byte_for_byte(full, tmp_path):
    first, second = (
        [path.read_bytes() for path in write_table(build_table(full.grid, full.root, scale="tiny"), tmp_path / name)]
        for name in ("one", "two")
    )
    assert first == second
    assert len(first) == 4


def test_a_terminal_of_any_width_shows_every_value(table):
    for width in (80, 200):
        out = io.StringIO()
        Console(file=out, width=width).print(console(table))
        shown = out.getvalue()
        for row in table.rows:
            assert f"  {row.label} " in shown
            for each in row.entries.values():
                assert f"[{each.low:.{each.digits}f}, {each.high:.{each.digits}f}]" in shown
        daggers = sum(each.dagger for row in table.rows for each in row.entries.values())
        assert sum(shown.count(f"{digit}†") for digit in range(10)) == daggers


def read_csv(table, folder):
    path = next(path for path in write_table(table, folder) if path.name == "table1.csv")
    reader = csv.DictReader(path.read_text().splitlines())
    return list(reader), reader.fieldnames
