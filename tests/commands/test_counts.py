"""Counts without weights: equal to closed forms, to models that are really built, and to what the paper prints."""

import csv
import dataclasses
import runpy
import sys
from pathlib import Path

import pytest

from reproduction.cells.from_config import compose_cell
from reproduction.cli import NotComplete
from reproduction.commands import counts
from reproduction.commands.counts import base_shape, count, count_on, method_at
from reproduction.paths import EXPERIMENTS
from reproduction.report.counts import Compared, summary, write_counts, write_figure1c, write_percentages, write_table6
from reproduction.report.rounding import DIFFERS, ROUNDS, TRUNCATES, agreement
from reproduction.training import (
    ModelSpec,
    UnfitBase,
    base_identity,
    build_adapted,
    build_base,
    build_model,
    count_parameters,
)

OVERRIDES = ["train.learning_rate=0.001"]


def test_the_inventory_has_what_every_scales_tables_pair_and_no_table_without_cells_there(monkeypatch) -> None:
    monkeypatch.setattr(counts, "count", lambda base, method, *, scale: (base, method))
    found = counts.inventory()
    assert ("small", ("llama3_full", "lora")) in found
    assert {("paper", ("llama3", "dora")), ("tiny", ("mistral", "fft"))} <= set(found)
    assert not [pair for scale, pair in found if scale != "small" and pair[0] == "llama3_full"]


# Sizes as the models' authors publish them.
BASE_SIZES = {"llama3": 8_030_261_248, "mistral": 7_241_732_096, "llama3_2_3b": 3_212_749_824}

# What one module of `out` rows and `in` columns trains, from the paper's equations and its Table 6.
PER_MODULE = {
    "lora": lambda i, o, r: r * (i + o),
    "dora": lambda i, o, r: r * (i + o) + o,
    "hydralora": lambda i, o, r: r * i + 3 * r * o + 3 * i,
    "moelora": lambda i, o, r: 4 * r * (i + o) + 4 * i,
    "idlora": lambda i, o, r: o * r // 4 + 4 * i,
    "idlora_inner": lambda i, o, r: o * r // 4 + r,
    "idlora_no_rb": lambda i, o, r: o * r + 4 * i,
    "idlora_k6": lambda i, o, r: o * r // 4 + 6 * i,
}


def modules(base: str, scale: str = "paper") -> list[tuple[int, int]]:
    """(in, out) of every adapted module, from the sizes alone."""
    shape = dict(base_shape(base, scale).shape)
    hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    key_rows = hidden // heads * shape["num_key_value_heads"]
    layer = [(hidden, hidden), (hidden, key_rows), (hidden, key_rows), (hidden, hidden)]
    return [*layer, (hidden, inner), (hidden, inner), (inner, hidden)] * shape["num_hidden_layers"]


@pytest.mark.parametrize("base", BASE_SIZES)
def test_the_shapes_in_the_configs_have_their_models_published_sizes(base: str) -> None:
    counted = count(base, "base")
    assert counted.base_parameters == counted.parameters_total == BASE_SIZES[base]
    assert counted.parameters_trainable == 0
    assert count(base, "fft").parameters_trainable == BASE_SIZES[base]
    assert count(base, "fft").percentages == {"params_pct_paper": 100.0, "params_pct_plain": 100.0}


@pytest.mark.parametrize("method", PER_MODULE)
def test_what_is_counted_equals_the_closed_form(method: str) -> None:
    bases = BASE_SIZES if method == "idlora" else ["llama3_2_3b"]
    for base in bases:
        counted = count(base, method)
        assert counted.parameters_trainable == sum(PER_MODULE[method](i, o, counted.rank) for i, o in modules(base))
        assert counted.parameters_total == BASE_SIZES[base] + counted.parameters_trainable


def test_frozen_copies_are_pivots_times_inputs_of_every_module_and_never_in_the_total() -> None:
    for method, pivots in (("idlora", 4 * 128), ("idlora_no_rb", 4 * 32), ("idlora_k6", 6 * 128), ("lora", 0)):
        counted = count("llama3_2_3b", method)
        assert counted.frozen_copies == sum(pivots * i for i, _ in modules("llama3_2_3b"))
        assert counted.parameters_total == counted.base_parameters + counted.parameters_trainable


def test_both_routers_of_the_paper_are_counted_on_llama_3_8b() -> None:
    dense, inner = count("llama3", "idlora", rank=128), count("llama3", "idlora_inner", rank=128)
    assert (dense.parameters_trainable, inner.parameters_trainable) == (49_020_928, 44_068_864)
    assert dense.parameters_trainable - dense.parameters_router == inner.parameters_trainable - inner.parameters_router


@pytest.fixture(scope="module")
def table6() -> list[Compared]:
    return counts.table6()


@pytest.fixture(scope="module")
def percentages() -> list[Compared]:
    return counts.percentages()


def test_all_counts_of_table_6_agree_and_one_is_cut_off(table6: list[Compared]) -> None:
    verdicts = {(each.count.rank, each.count.method): each.agree for each in table6 if each.printed}
    assert len(verdicts) == 25
    assert {key for key, verdict in verdicts.items() if verdict != ROUNDS} == {(16, "idlora")}
    assert verdicts[16, "idlora"] == TRUNCATES
    for each in table6:
        forms = (PER_MODULE[each.count.method](i, o, each.count.rank) for i, o in modules("llama3"))
        assert each.ours == sum(forms)
    counts.require_agreement(table6)


def test_all_percentages_of_the_papers_tables_agree(percentages: list[Compared]) -> None:
    assert {each.table for each in percentages} == {"table1", "table2", "table3", "table7"}
    partial = [each for each in percentages if each.count.method != "fft"]
    assert (len(partial), len(percentages)) == (31, 35)
    assert {each.agree for each in percentages} == {ROUNDS}
    unlike = {
        each.count.percentages["params_pct_plain"] != each.ours for each in partial if "idlora" in each.count.method
    }
    assert unlike == {True}


def test_without_the_copies_no_percentage_of_id_lora_rounds_to_the_printed_one(percentages: list[Compared]) -> None:
    copied = [each for each in percentages if each.count.frozen_copies]
    plain = [agreement(each.count.percentages["params_pct_plain"], each.printed) for each in copied]
    assert len(copied) == 12
    assert ROUNDS not in plain


@pytest.mark.parametrize(
    ("value", "printed", "verdict"),
    [
        (10_485_760, "10.4M", TRUNCATES),
        (10_485_760, "10.5M", ROUNDS),
        (10_485_760, "10.3M", DIFFERS),
        (10_485_760, "10.6M", DIFFERS),
        (1_347_158_016, "1.3B", ROUNDS),
        (1_347_158_016, "1.4B", DIFFERS),
        (0.5624, "0.56", ROUNDS),
        (0.566, "0.56", TRUNCATES),
        (1.1049, "1.10", ROUNDS),
        (1.1049, "1.1", ROUNDS),
        (1.15, "1.1", TRUNCATES),
        (1.15, "1.2", ROUNDS),
        (1.25, "1.3", ROUNDS),
        (100.0, "100", ROUNDS),
        (99.4, "100", DIFFERS),
    ],
)
def test_agreement_is_to_the_printed_digits_and_says_how(value: float, printed: str, verdict: str) -> None:
    assert agreement(value, printed) == verdict


@pytest.mark.parametrize("printed", ["", "M", "many", "3,5M", "4.2G"])
def test_a_printed_text_that_is_no_number_is_refused(printed: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        agreement(1, printed)


def test_one_count_that_differs_ends_the_command_and_is_named(monkeypatch, tmp_path: Path) -> None:
    folder = tmp_path / "table6"
    folder.mkdir()
    folder.joinpath("paper.csv").write_text("base,rank,method,printed\nllama3,8,lora,21.0M\nllama3,8,idlora,7.8M\n")
    monkeypatch.setattr(counts, "EXPERIMENTS", tmp_path)
    compared = counts.table6()
    with pytest.raises(NotComplete, match=r"1 of the paper's 2 .*LLaMA-3-8B ID-LoRA r=8: 7,733,248, printed 7\.8M"):
        counts.require_agreement(compared)


@pytest.mark.parametrize("method", ["lora", "dora", "hydralora", "moelora", "idlora", "idlora_inner", "idlora_no_rb"])
def test_a_shape_is_counted_as_the_same_model_with_weights_is(method: str, tmp_path: Path) -> None:
    cell = compose_cell("gsm8k_llama3", method, scale="tiny", seed=0, overrides=[*OVERRIDES, f"results_dir={tmp_path}"])
    built = count_parameters(build_adapted(build_base(cell.model)[0], cell.method, seed=0))
    counted = dataclasses.asdict(count("llama3", method, scale="tiny"))
    assert built == {name: counted[name] for name in built}


def test_the_embedded_pair_trains_at_the_papers_ratio() -> None:
    def ratio(scale: str) -> float:
        ours, theirs = (count("llama3", method, scale=scale).parameters_trainable for method in ("idlora", "lora"))
        return ours / theirs

    assert ratio("tiny") == pytest.approx(ratio("paper"), abs=0.002)


def test_a_rank_that_a_base_cannot_serve_is_refused_with_the_layer(monkeypatch) -> None:
    with pytest.raises(ValueError, match="k_proj has 1024 rows"):
        count("llama3", "idlora", rank=512)


def test_every_method_fits_a_base_of_every_size(table6, tmp_path: Path) -> None:
    (written,) = write_figure1c(counts.figure1c(), tmp_path)
    rows = list(csv.DictReader(written.read_text().splitlines()))
    assert list(rows[0])[:7] == [
        "panel", "model", "method", "rank", "trainable", "params_pct_paper", "params_pct_plain",
    ]  # fmt: skip
    by_rank = {(int(row["rank"]), row["method"]): int(row["trainable"]) for row in rows if row["panel"] == "rank"}
    assert by_rank == {(each.count.rank, each.count.method): each.ours for each in table6 if each.printed}
    by_model = {(row["model"], row["method"]) for row in rows if row["panel"] == "model"}
    methods = {"lora", "dora", "hydralora", "moelora", "idlora"}
    assert by_model == {(name, m) for name in ("LLaMA-3.2-3B", "Mistral-7B", "LLaMA-3-8B") for m in methods}


def test_the_written_tables_hold_every_number_and_its_verdict(table6, percentages, tmp_path: Path) -> None:
    table, document, latex = (path.read_text() for path in write_table6(table6, tmp_path))
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["method"], row["trainable"], row["agree"]) for row in rows] == [
        (each.count.method, str(each.ours), each.agree) for each in table6
    ]
    assert summary(table6) in document
    assert all(f"{each.ours:,}" in document and f"{each.ours:,}" in latex for each in table6)
    embedded = [count("llama3", "lora", scale="tiny")]
    table, document = (path.read_text() for path in write_percentages(percentages, embedded, tmp_path))
    assert len(list(csv.DictReader(table.splitlines()))) == len(percentages)
    assert "| Pebble | LoRA | 6 | 73,728 |" in document
    (written,) = write_counts([("tiny", embedded[0])], tmp_path)
    assert written.read_text().splitlines()[1].startswith("tiny,pebble,lora,6,73728,0,")


def test_the_committed_tables_are_what_is_counted_now(table6, percentages, repository: Path, tmp_path: Path) -> None:
    write_table6(table6, tmp_path)
    write_percentages(percentages, [], tmp_path)
    for name in ("table6.csv", "table6.md", "table6.tex", "percentages.csv"):
        assert (tmp_path / name).read_text() == (repository / "results" / "counts" / name).read_text()


def test_the_shape_is_part_of_a_run_only_where_its_weights_are_random(tmp_path: Path) -> None:
    def name(*overrides: str, scale: str = "paper") -> str:
        common = [*OVERRIDES, f"results_dir={tmp_path}"]
        return compose_cell("gsm8k_llama3", "lora", scale=scale, seed=0, overrides=[*common, *overrides]).run.name

    smaller = "model.shape.num_hidden_layers=2"
    assert name() == name(smaller)
    assert name("model.init=random") != name("model.init=random", smaller)
    assert name("model.init=random") != name()
    assert name("model.init=random", scale="tiny") == name("model.init=random", smaller, scale="tiny")


SMALL = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip


def shaped(**changes: object) -> ModelSpec:
    return ModelSpec(name="small", label="Small", path_or_id="no/where", init="random", shape=SMALL | changes)


def test_a_shape_alone_makes_a_model_with_the_same_random_weights_each_time() -> None:
    one, two = build_model(shaped()), build_model(shaped())
    assert all((a == b).all() for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sum(p.numel() for p in one.parameters()) == count_on(shaped(), method_at("base", "tiny")).base_parameters
    assert base_identity(shaped()) == base_identity(shaped())
    assert base_identity(shaped()) != base_identity(shaped(num_hidden_layers=2))


@pytest.mark.parametrize(("changes", "words"), [({"hiden_size": 3}, "hiden_size"), ({"model_type": "lama"}, "lama")])
def test_a_shape_that_no_model_has_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(UnfitBase, match=words):
        build_model(shaped(**changes))


def test_pretrained_weights_take_no_shape() -> None:
    with pytest.raises(ValueError, match=r"model\.shape"):
        ModelSpec(name="m", label="M", path_or_id="m", shape=SMALL)


def run_script(path: Path, *arguments: str) -> None:
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def test_the_command_prints_what_it_writes(repository: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [])
    run_script(repository / "scripts" / "counts.py", "table=table6", f"results_dir={tmp_path}")
    assert (tmp_path / "counts" / "table6.md").read_text() in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run_script(repository / "scripts" / "counts.py", "table=table9", f"results_dir={tmp_path}")
    assert ended.value.code == 2
    refusal = capsys.readouterr().err
    assert refusal.count("\n") == 1
    assert "table9" in refusal
    assert "table6" in refusal


def test_every_table_that_prints_a_percentage_is_compared(percentages: list[Compared]) -> None:
    printed = 0
    for path in EXPERIMENTS.glob("table*/paper.csv"):
        printed += path.read_text().count(",params_pct,")
    assert printed == len(percentages)
