"""Tables from folders of runs: printed values, the origin of bold and †, and values that are never printed."""

import csv
import dataclasses
import html
import io
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from reproduction.report import latex, load_grid, markdown, print_table, write_table
from reproduction.report.documents import literal, pipes

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def entry(table, method, column="gsm8k", base="llama3"):
    return next(row.entries[column] for row in table.rows if (row.base, row.method) == (base, method))


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def printed(table, width=100):
    shown = io.StringIO()
    print_table(table, Console(file=shown, width=width))
    return shown.getvalue()


def test_a_full_grid_has_every_value_in_its_interval_and_equal_to_the_mean_of_the_records(table, full):
    assert [row.label for row in table.rows[:6]] == ["Base (untuned)", "FFT", "LoRA", "DoRA", "HydraLoRA", "ID-LoRA"]
    assert (len(table.rows), table.missing) == (12, [])
    assert all(0 <= each.low <= each.value <= each.high <= 100 for row in table.rows for each in row.entries.values())
    outcomes = full.draw("codealpaca_mistral", "idlora", "humaneval")
    assert entry(table, "idlora", "pass@1", "mistral").value == pytest.approx(100 * outcomes.mean(), abs=0.05)


def test_the_paper_counts_frozen_copies_and_the_plain_share_stands_beside(table):
    row = next(row for row in table.rows if row.method == "idlora")
    assert row.params == f"{100 * 7_000 / (1_300_000 + 7_000 + 48_000):.2f}"
    assert row.params_plain == f"{100 * 7_000 / (1_300_000 + 7_000):.2f}"
    shares = {row.method: row.params for row in table.rows if row.base == "llama3"}
    assert (shares["base"], shares["fft"]) == ("0", "100")


def test_bold_goes_to_all_equal_bests_and_to_none_where_all_are_equal(problems):
    half, other_half, more = [1, 0] * 10, [0, 1] * 10, [1, 1, 1, 0] * 5

    def best(name, **outcomes):
        table = problems(name, **outcomes).table()
        return [row.method for row in table.rows if (each := row.entries["gsm8k"]) and each.best]

    assert best("after", lora=half, idlora=more) == ["idlora"]
    assert best("before", lora=more, idlora=half) == ["lora"]
    assert best("tied", base=[0] * 20, lora=half, idlora=other_half) == ["lora", "idlora"]
    assert best("alike", lora=half, idlora=other_half) == []


def test_the_dagger_needs_a_small_p_and_to_be_ahead(problems):
    few, six, five = [0] * 7 + [1] * 13, [1] * 6 + [0] + [1] * 13, [1] * 5 + [0] * 2 + [1] * 13
    assert entry(problems("six", lora=few, idlora=six).table(), "idlora").dagger
    assert not entry(problems("five", lora=few, idlora=five).table(), "idlora").dagger
    assert not entry(problems("behind", lora=six, idlora=few).table(), "idlora").dagger


def test_the_reference_carries_no_dagger_and_the_column_beside_no_mark_at_all(table):
    assert not any(each.dagger for row in table.rows if row.method == "lora" for each in row.entries.values())
    assert any(each.dagger for row in table.rows for each in row.entries.values())
    assert not any(row.entries["over_refusal"].dagger or row.entries["over_refusal"].best for row in table.rows)


def test_markdown_csv_latex_and_terminal_have_the_same_values_and_marks(table, tmp_path):
    paths = write_table(table, tmp_path)
    md, rows, tex = paths[0].read_text(), rows_of(paths[1]), paths[2].read_text()
    wide, narrow = printed(table, 200), printed(table, 80)
    assert [path.name for path in paths] == ["table1.md", "table1.csv", "table1.tex", "table1_orderings.csv"]
    for row, line in zip(table.rows, rows, strict=True):
        assert (line["method"], line["parameters_trainable"], line["seeds"]) == (row.method, row.trainable, "1")
        for column, each in row.entries.items():
            value, low, high = (f"{number:.{each.digits}f}" for number in (each.value, each.low, each.high))
            ends = (line[f"{column}_ci_low"], line[f"{column}_ci_high"])
            assert (line[column], *ends, line[f"{column}_spread"]) == (value, low, high, "")
            assert (line[f"{column}_best"], line[f"{column}_dagger"]) == ("yes" * each.best, "yes" * each.dagger)
            dagger, star = "†" * each.dagger, "**" * each.best
            assert f"{star}{value}{star}{dagger} [{low}, {high}]" in md
            strong = f"\\textbf{{{value}}}" if each.best else value
            assert strong + "$^\\dagger$" * each.dagger + f" {{\\tiny [{low}, {high}]}}" in tex
            assert f"[{low}, {high}]" in narrow
            assert f"[{low}, {high}]" in wide
    assert "Held-out loss: nats a token, lower is better" in wide
    daggers = sum(each.dagger for row in table.rows for each in row.entries.values())
    assert len(re.findall(r"\d†", narrow)) == len(re.findall(r"\d†", wide)) == daggers


def test_the_latex_is_balanced_and_escaped(table):
    body = latex(table).split("\n", 1)[1]  # the first line is a comment
    assert body.count("{") == body.count("}")
    assert body.count("\\begin") == body.count("\\end")
    assert not re.search(r"(?<!\\)[%_#]", body.replace("tab:table1-tiny", ""))
    assert body.isascii()
    for part, columns in zip(body.split("\\end{tabular}"), (6, 5), strict=False):
        lines = [line for line in part.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {2 + columns}
        assert len(lines) == 13


def test_at_the_papers_scale_each_value_stands_beside_the_papers(world, few, tmp_path):
    table = world(scale="paper", grid=few).fill().table()
    each = entry(table, "idlora")
    assert each.paper.value == 63.5
    assert f"; paper 63.5†, {each.value - 63.5:+.1f} |" in markdown(table)
    assert "## The paper's numbers" not in markdown(table)
    row = rows_of(write_table(table, tmp_path)[1])[2]
    assert (row["gsm8k_paper"], row["gsm8k_difference"]) == ("63.5", f"{each.value - 63.5:+.1f}")
    assert f"paper 63.5$^\\dagger$, {each.value - 63.5:+.1f}" in latex(table)


def test_away_from_the_papers_scale_nothing_can_be_mistaken_for_the_papers(table, world, few, tmp_path):
    above, below = markdown(table).split("## The paper's numbers")
    for word in ("LLaMA", "Mistral", "HumanEval pass", "HEx-PHI refusal"):
        assert word not in above
        assert word in below
    assert "| Pebble |" in above
    assert "It cannot show" in above
    small = world(scale="small", grid=few).fill().table()
    assert "SmolLM2-135M-Instruct in place of LLaMA-3-8B, on the paper's tasks" in markdown(small)
    for each in (table, small):
        assert not re.search(r"paper \d", markdown(each))  # no value of the paper's beside ours
        assert not [name for name in rows_of(write_table(each, tmp_path)[1])[0] if name.endswith("_difference")]
        assert "LLaMA" not in latex(each).split("\\caption")[0]


NASTY = (
    "a|b \\| c", "**bold** and *em*", "_under_ snake_case_name _", "`code` ``x``", "[click](https://example.org)",
    "<script>alert(1)</script>", "a & b &lt; c", "# heading", "- list", "> quote", "~~gone~~ $x^2$", "r < 8 > 4, 50 %",
)  # fmt: skip


@pytest.mark.parametrize("label", NASTY)
def test_a_label_reads_as_it_is_in_text_and_in_a_table(label):
    assert READER.render(literal(label)) == f"<p>{html.escape(label)}</p>\n".replace("&#x27;", "'")
    table = READER.render(pipes(["Model", "Method", "n"], [[label, "LoRA", "**1**"], ["one\nmore", label, "2"]]))
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*)</td>", table)]
    assert cells == [label, "LoRA", "<strong>1</strong>", "one more", label, "2"]


@pytest.fixture
def filled_table(world, repository):
    def fill(name):
        benchmarks = ("gsm8k", "humaneval", "heldout") if name == "table7" else ("gsm8k", "humaneval")
        grid = load_grid(repository / "experiments" / name).at("tiny").showing(benchmarks, "tiny")
        return world(grid=grid, name=name).fill().table()

    return fill


def test_pairs_are_tested_against_their_own_partner_and_their_orderings_are_shown(filled_table):
    table = filled_table("table7")
    assert {(each.method, each.reference) for each in table.comparisons} == set(table.grid.pairs())
    assert {each.family_size for each in table.comparisons} == {4 * 4, 4 * 6}
    shown = markdown(table)
    assert "| Pebble | ID-LoRA r=4 vs LoRA r=1 |" in shown
    assert "| LoRA r=6 | 12,000 |" in shown
    differences = shown.split("## Differences")[1].split("## ")[0]
    assert "ID-LoRA r=24 of LoRA r=6" in differences
    assert "| LoRA r=6" not in differences


def test_a_table_or_a_column_that_the_paper_lacks_has_no_numbers_of_it_and_no_orderings(filled_table):
    controls = filled_table("table_controls")
    assert controls.orderings == []
    assert not re.search("## (The paper's numbers|Orderings)", markdown(controls))
    assert "## Differences from ID-LoRA" in markdown(controls)
    table8 = markdown(filled_table("table8"))
    block = table8.split("## The paper's numbers")[1].split("## ")[0]
    assert "| LLaMA-3.2-3B | k = 6 | 39.6 | 30.6 |" in block
    assert "# params" not in block


def test_a_verdict_on_an_ordering_comes_from_our_own_interval(world, grid):
    """ID-LoRA is ahead of FFT on GSM8K in the paper (63.5 against 58.8)."""
    strong, weak, tie, nearly = ([1] * n + [0] * (20 - n) for n in (18, 4, 18, 17))
    cases = {
        ("same", 1): (strong, weak), ("opposite", -1): (weak, strong), ("tie here", 0): (strong, tie[::-1]),
        ("within noise", 1): (strong, nearly), ("within noise", -1): (nearly, strong),
    }  # fmt: skip
    own = {"experiments": ("gsm8k_llama3",), "columns": grid.columns[:1], "bases": {"llama3": grid.bases["llama3"]}}
    narrow = dataclasses.replace(grid, **own)
    for verdict, outcomes in cases.items():
        made = world(grid=narrow, name=" ".join(map(str, verdict)))
        for method, values in zip(("idlora", "fft"), outcomes, strict=True):
            made.evaluate(made.run("gsm8k_llama3", method, benchmarks=[]), "gsm8k", np.array(values)[:, None])
        found = [each for each in made.table().orderings if (each.column, each.behind) == ("gsm8k", "fft")]
        assert [(each.verdict, each.leaning) for each in found if each.ahead == "idlora"] == [verdict]


def test_every_pair_of_the_papers_methods_has_an_ordering_on_every_column(table, world, tmp_path):
    found = {(each.base, each.column, frozenset((each.ahead, each.behind))): each.verdict for each in table.orderings}
    assert len(table.orderings) == len(found) == 2 * 6 * 10
    assert found["llama3", "gsm8k", frozenset(("idlora", "dora"))] == "tie in the paper"
    assert sum(verdict == "tie in the paper" for verdict in found.values()) == 3
    assert {verdict for (_, column, _), verdict in found.items() if column == "params_pct"} == {"same"}
    block = markdown(table).split("## Orderings")[1]
    assert block.count(" | ID-LoRA vs ") == 8
    assert f"All {len(found)} pairs" in block
    assert len(rows_of(write_table(table, tmp_path)[3])) == len(found)
    empty = world().table()
    assert {each.verdict for each in empty.orderings} == {"missing", "tie in the paper"}
    assert "; missing" not in markdown(empty)
