"""Counts without weights: equal to closed forms, to models that are built, and to the paper's numbers."""

import csv
import dataclasses
import runpy
import sys
from pathlib import Path

import pytest

from idlora.tuners import REGISTRY
from reproduction.cells.from_config import compose_cell
from reproduction.cli import NotComplete
from reproduction.commands import counts
from reproduction.commands.counts import base_shape, count, count_on, method_at
from reproduction.paths import EXPERIMENTS
from reproduction.report.counts import DIFFERS, ROUNDS, TRUNCATES, agreement
from reproduction.report.documents import read_csv
from reproduction.training import (
    ModelSpec,
    UnfitBase,
    base_identity,
    build_adapted,
    build_base,
    build_model,
    count_parameters,
)

# Sizes as the models' authors publish them.
BASE_SIZES = {"llama3": 8_030_261_248, "mistral": 7_241_732_096, "llama3_2_3b": 3_212_749_824}

PEFT_FORMS = {"lora": lambda i, o, r: r * (i + o), "dora": lambda i, o, r: r * (i + o) + o}
"""Trained parameters of a module with i inputs and o outputs, of PEFT's methods in Table 6."""

TABLE_6 = [*dict.fromkeys(row["method"] for row in read_csv(EXPERIMENTS / "table6/paper.csv")), counts.OTHER_ROUTER]


def closed_form(method: str, base: str, *, rank: int | None = None) -> int:
    """Sum a method's closed form over the modules of a base at the paper's scale."""
    spec = method_at(method, "paper")
    arguments = dict(spec.arguments) | ({} if rank is None else {"r": rank})
    if method in PEFT_FORMS:
        return sum(PEFT_FORMS[method](i, o, arguments["r"]) for i, o in modules(base))
    config = REGISTRY[spec.peft_type.lower()].config_cls(**arguments)
    return sum(config.trainable_parameters(i, o) for i, o in modules(base))


def modules(base: str) -> list[tuple[int, int]]:
    """Return (in, out) of every adapted module."""
    shape = dict(base_shape(base, "paper").shape)
    hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    key_rows = hidden // heads * shape["num_key_value_heads"]
    layer = [(hidden, hidden), (hidden, key_rows), (hidden, key_rows), (hidden, hidden)]
    return [*layer, (hidden, inner), (hidden, inner), (inner, hidden)] * shape["num_hidden_layers"]


@pytest.mark.parametrize("base", BASE_SIZES)
def test_the_shapes_in_the_configs_have_their_models_published_sizes(base):
    counted = count(base, "base")
    assert counted.base_parameters == counted.parameters_total == BASE_SIZES[base]
    assert counted.parameters_trainable == 0
    assert count(base, "fft").percentages == {"params_pct_paper": 100.0, "params_pct_plain": 100.0}


@pytest.mark.parametrize("method", TABLE_6)
def test_what_is_counted_equals_the_closed_form(method):
    for base in BASE_SIZES if method == "idlora" else ["llama3_2_3b"]:
        counted = count(base, method)
        assert counted.parameters_trainable == closed_form(method, base)
        assert counted.parameters_total == BASE_SIZES[base] + counted.parameters_trainable
        pivots = method_at(method, "paper").arguments.get("num_clusters", 0) * counted.rank
        assert counted.frozen_copies == sum(pivots * i for i, _ in modules(base))


def test_all_counts_of_table_6_agree_and_one_is_cut_off():
    found = counts.table6()
    verdicts = {(each.count.rank, each.count.method): each.agree for each in found if each.printed}
    assert len(verdicts) == 25
    assert {key: verdict for key, verdict in verdicts.items() if verdict != ROUNDS} == {(16, "idlora"): TRUNCATES}
    for each in found:
        assert each.ours == closed_form(each.count.method, "llama3", rank=each.count.rank)
    by_rank = [(each.rank, each.method) for each in counts.figure1c()["rank"]]
    assert sorted(by_rank) == sorted(verdicts)


def test_all_percentages_of_the_papers_tables_agree_and_idloras_only_with_its_copies():
    found = counts.percentages()
    assert len(found) == sum(path.read_text().count(",params_pct,") for path in EXPERIMENTS.glob("table*/paper.csv"))
    assert {each.agree for each in found} == {ROUNDS}
    copied = [each for each in found if each.count.frozen_copies]
    assert len(copied) == 12
    assert ROUNDS not in [agreement(each.count.percentages["params_pct_plain"], each.printed) for each in copied]


@pytest.mark.parametrize(
    ("value", "printed", "verdict"),
    [
        (10_485_760, "10.4M", TRUNCATES),
        (10_485_760, "10.5M", ROUNDS),
        (10_485_760, "10.6M", DIFFERS),
        (1_347_158_016, "1.3B", ROUNDS),
        (0.566, "0.56", TRUNCATES),
        (1.1049, "1.10", ROUNDS),
        (1.25, "1.3", ROUNDS),
        (99.4, "100", DIFFERS),
    ],
)
def test_agreement_is_to_the_printed_digits_and_says_how(value, printed, verdict):
    assert agreement(value, printed) == verdict


def test_one_count_that_differs_ends_the_command_and_is_named(monkeypatch, tmp_path):
    folder = tmp_path / "table6"
    folder.mkdir()
    folder.joinpath("paper.csv").write_text("base,rank,method,printed\nllama3,8,lora,21.0M\nllama3,8,idlora,7.8M\n")
    monkeypatch.setattr(counts, "EXPERIMENTS", tmp_path)
    with pytest.raises(NotComplete, match=r"ID-LoRA r=8: 7,733,248, printed 7\.8M"):
        counts.report_counts("table6", results_dir=tmp_path)


@pytest.mark.parametrize("method", TABLE_6)
def test_a_shape_is_counted_as_the_same_model_with_weights_is(method, tmp_path):
    asked = ["train.learning_rate=0.001", f"results_dir={tmp_path}"]
    cell = compose_cell("gsm8k_llama3", method, scale="tiny", seed=0, overrides=asked)
    built = count_parameters(build_adapted(build_base(cell.model)[0], cell.method, seed=0))
    counted = dataclasses.asdict(count("llama3", method, scale="tiny"))
    assert built == {name: counted[name] for name in built}


def test_the_embedded_pair_trains_at_the_papers_ratio():
    ratios = [
        count("llama3", "idlora", scale=scale).parameters_trainable
        / count("llama3", "lora", scale=scale).parameters_trainable
        for scale in ("tiny", "paper")
    ]
    assert ratios[0] == pytest.approx(ratios[1], abs=0.002)


def test_a_rank_that_a_base_cannot_serve_is_refused_with_the_layer():
    with pytest.raises(ValueError, match="k_proj has 1024 rows"):
        count("llama3", "idlora", rank=512)


def test_the_inventory_has_what_every_scales_tables_pair(monkeypatch):
    monkeypatch.setattr(counts, "count", lambda base, method, *, scale: (base, method))
    found = counts.inventory()
    assert {("small", ("llama3_full", "lora")), ("paper", ("llama3", "dora")), ("tiny", ("mistral", "fft"))} <= {*found}
    assert not [pair for scale, pair in found if scale != "small" and pair[0] == "llama3_full"]


def test_the_shape_is_part_of_a_run_only_where_its_weights_are_random(tmp_path):
    def name(*overrides: str, scale: str = "paper") -> str:
        asked = ["train.learning_rate=0.001", f"results_dir={tmp_path}", *overrides]
        return compose_cell("gsm8k_llama3", "lora", scale=scale, seed=0, overrides=asked).run.name

    smaller = "model.shape.num_hidden_layers=2"
    assert name() == name(smaller)
    assert len({name(), name("model.init=random"), name("model.init=random", smaller)}) == 3
    assert name("model.init=random", scale="tiny") == name("model.init=random", smaller, scale="tiny")


SMALL = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip


def shaped(**changes: object) -> ModelSpec:
    return ModelSpec(name="small", label="Small", path_or_id="no/where", init="random", shape=SMALL | changes)


def test_a_shape_alone_makes_a_model_with_the_same_random_weights_each_time():
    one, two = build_model(shaped()), build_model(shaped())
    assert all((a == b).all() for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sum(p.numel() for p in one.parameters()) == count_on(shaped(), method_at("base", "tiny")).base_parameters
    assert base_identity(shaped()) == base_identity(shaped()) != base_identity(shaped(num_hidden_layers=2))
    for changes, words in (({"hiden_size": 3}, "hiden_size"), ({"model_type": "lama"}, "lama")):
        with pytest.raises(UnfitBase, match=words):
            build_model(shaped(**changes))
    with pytest.raises(ValueError, match=r"model\.shape"):
        ModelSpec(name="m", label="M", path_or_id="m", shape=SMALL)


def run_script(path: Path, *arguments: str) -> None:
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def test_the_command_writes_the_committed_tables_and_prints_them(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [])
    script = repository / "scripts" / "counts.py"
    for table in ("table6", "percentages", "figure1c"):
        run_script(script, f"table={table}", f"results_dir={tmp_path}")
    written = {path.name: path for path in (tmp_path / "counts").iterdir()}
    assert set(written) == {
        "table6.csv", "table6.md", "table6.tex", "percentages.csv", "percentages.md", "figure1c.csv",
    }  # fmt: skip
    for name, path in written.items():
        assert path.read_text() == (repository / "results" / "counts" / name).read_text(), name
    assert written["table6.md"].read_text() in capsys.readouterr().out
    assert "| Pebble | LoRA | 6 | 73,728 |" in written["percentages.md"].read_text()
    rows = list(csv.DictReader(written["figure1c.csv"].read_text().splitlines()))
    by_model = {(row["model"], row["method"]) for row in rows if row["panel"] == "model"}
    assert len(by_model) == 3 * 5
    with pytest.raises(SystemExit) as ended:
        run_script(script, "table=table9", f"results_dir={tmp_path}")
    assert ended.value.code == 2
    assert "table9" in capsys.readouterr().err
