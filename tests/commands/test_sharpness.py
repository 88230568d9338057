"""scripts/sharpness.py: methods of an embedded base, measured where their trainings start, to tables and a CSV."""

import csv
import dataclasses
import io
import shutil
import statistics

import pytest
from rich.console import Console

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.override import override
from reproduction.commands import sharpness
from reproduction.commands.sharpness import Start, report_sharpness

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "all"]
QUICK = ("rows=5", "micro_batch_size=3", "iterations=3", "methods=[lora,idlora_equal_norm]")


def asked(results, *overrides) -> Start:
    experiment = "experiment=multitask_llama3_2_3b"
    given = ["scale=tiny", experiment, override("results_dir", results), *QUICK, *overrides]
    return Start.from_config(compose("sharpness", given))


def reported(start) -> tuple[str, list[dict[str, str]]]:
    """What is printed, and the rows of the CSV."""
    printed = io.StringIO()
    report_sharpness(start, Console(width=80, file=printed))
    with start.out.open(newline="") as file:
        return printed.getvalue(), list(csv.DictReader(file))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A first command: its results folder, what it printed, and its rows."""
    results = tmp_path_factory.mktemp("results")
    return results, *reported(asked(results))


def test_each_method_has_a_row_for_each_kind_of_module_and_one_for_all(first):
    _, text, rows = first
    assert [(row["method"], row["module"]) for row in rows] == [
        (method, module) for method in ("idlora_equal_norm", "lora") for module in MODULES
    ]
    for row in rows:
        assert (row["base"], row["seed"], row["rows"], row["rate"]) == ("gravel", "0", "5", "5e-05")
        assert row["trained"] == {"lora": "73728", "idlora_equal_norm": "43008"}[row["method"]]
        assert 0 < float(row["first_update"]) < 0.01
        assert f"{float(row['first_update']) / 1e-4:.3g} " in text
        assert f"{float(row['a_row_norm']):.3g} " in text
        assert int(row["tokens"]) > 5
        found = (row["largest_eigenvalue"], row["iterations"], row["converged"])
        if row["module"] == "all":
            assert float(found[0]) > 0
            assert found[1:] == ("3", "no")
        else:
            assert found == ("", "", "")
    assert text.count(" gate ") == 2
    assert "ID-LoRA, rows of one norm" in " ".join(text.split())
    assert max(map(len, text.split("written")[0].splitlines())) <= 80


def test_norms_are_those_of_the_rows_that_the_input_is_multiplied_by(first):
    from reproduction.training import build_adapted, build_base

    start = asked(first[0])
    norms = {(row["method"], row["module"]): float(row["a_row_norm"]) for row in first[2]}
    for method in start.methods:
        model = build_adapted(build_base(start.model)[0], method, 0)
        tensors = {name: each for name, each in model.state_dict().items() if "_A.default" in name and "v_proj" in name}
        assert len(tensors) == model.config.num_hidden_layers
        mean = statistics.fmean(float(each.norm(dim=1).mean()) for each in tensors.values())
        assert norms[method.name, "v_proj"] == pytest.approx(mean, rel=1e-5)
        assert norms[method.name, "all"] != pytest.approx(mean, rel=1e-5)


def test_a_method_that_is_there_is_not_measured_again_and_another_rate_or_rank_is(first, monkeypatch):
    results, text, rows = first
    real, measured = sharpness.measure, []
    monkeypatch.setattr(
        sharpness, "measure", lambda start, method, head: measured.append(method.name) or real(start, method, head)
    )
    again, same = reported(asked(results))
    assert same == rows
    assert measured == []
    assert again.splitlines() == [line for line in text.splitlines() if not line.endswith(" s")]
    _, both = reported(asked(results, "rate=1e-2", "methods=[lora]"))
    assert measured == ["lora"]
    assert len(both) == len(rows) + len(MODULES)
    whole = [row for row in both if (row["method"], row["module"]) == ("lora", "all")]
    moved = {row["rate"]: float(row["first_update"]) for row in whole}
    assert moved["0.01"] == pytest.approx(200 * moved["5e-05"], rel=0.05)  # a step of Adam is as long as its rate
    reported(asked(results, "methods=[lora]", "iterations=4"))
    assert measured == ["lora", "lora"]  # the eigenvalue had not been found
    (lora,) = asked(results, "methods=[lora]").methods
    smaller = dataclasses.replace(lora, arguments=lora.arguments | {"r": 3, "lora_alpha": 6})
    _, beside = reported(dataclasses.replace(asked(results), methods=(smaller,)))
    assert measured == ["lora", "lora", "lora"]
    assert len(beside) == len(both) + len(MODULES)
    assert {row["trained"] for row in beside if row["rate"] == "5e-05"} == {"36864", "43008", "73728"}


def test_other_data_alpha_or_modules_are_measured_and_a_copy_of_the_data_is_not(first, monkeypatch):
    results, _, rows = first
    measured = []

    def measure(start, method, head):
        measured.append(start.setting(method))
        return [row | {"setting": measured[-1]} for row in rows if row["method"] == method.name]

    monkeypatch.setattr(sharpness, "measure", measure)
    start = asked(results, "methods=lora")
    copied = shutil.copytree(start.data_root, results / "copied")
    assert [method.name for method in start.methods] == ["lora"]
    reported(asked(results, "methods=[lora]", override("data_root", copied)))
    assert measured == []
    (lora,) = start.methods
    louder = dataclasses.replace(lora, arguments=lora.arguments | {"lora_alpha": 99})
    others = [
        asked(results, "data=gsm8k", "methods=[lora]"),
        dataclasses.replace(start, methods=(louder,)),
        dataclasses.replace(start, kinds=("q_proj",)),
    ]
    for number, other in enumerate(others, start=1):
        reported(other)
        assert len(set(measured)) == len(measured) == number


def test_a_method_without_an_a_has_no_norm_and_takes_the_seed_and_modules_of_the_command(tmp_path):
    start = asked(tmp_path, "methods=[fft,idlora]", "seed=3", "train.target_modules=[q_proj]", "train.dropout=0.2")
    assert start.methods[1].arguments["seed"] == 3
    assert start.methods[1].arguments["target_modules"] == ["q_proj"]
    assert start.methods[1].arguments["lora_dropout"] == 0.2
    _, rows = reported(start)
    assert [(row["method"], row["module"]) for row in rows] == [
        (method, module) for method in ("fft", "idlora") for module in ("q_proj", "all")
    ]
    assert [bool(row["a_row_norm"]) for row in rows] == [False, False, True, True]
    assert float(rows[1]["first_update"]) == float(rows[0]["first_update"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["rows=0"], "rows=0: give 1 or more"),
        (["iterations=0"], "iterations=0: give 1"),
        (["rate=0"], "rate=0: give a number above 0"),
        (["methods=[lora,dorra]"], "methods=dorra is no method; there are .*dora, .*lora"),
        (["methods=[]"], "methods names none"),
        (["methods=[lora,base]"], "methods has base, which trains nothing"),
        (["model.path_or_id=./nowhere"], "path_or_id=./nowhere is no model folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(overrides, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        asked(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["train.target_modules=[w_proj]", "methods=[fft]"], r"target_modules=\['w_proj'\] names no module of gravel"),
        (["rows=1000000"], "rows=1000000: the training set has"),
    ],
)
def test_a_set_that_is_too_small_and_modules_that_are_not_there_are_told(overrides, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        report_sharpness(asked(tmp_path, *overrides), Console(file=io.StringIO()))
