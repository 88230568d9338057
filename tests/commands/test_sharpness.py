"""scripts/sharpness.py: tables and a CSV of methods on an embedded base at the start of training."""

import csv
import dataclasses
import io
import statistics

import pytest
from rich.console import Console

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.override import override
from reproduction.commands import sharpness
from reproduction.commands.sharpness import Start, report_sharpness
from reproduction.training import build_adapted, build_base

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "all"]
QUICK = ("rows=5", "micro_batch_size=3", "iterations=3", "methods=[lora,idlora_equal_norm]")


def asked(results, *overrides) -> Start:
    experiment = "experiment=multitask_llama3_2_3b"
    given = ["scale=tiny", experiment, override("results_dir", results), *QUICK, *overrides]
    return Start.from_config(compose("sharpness", given))


def reported(start) -> tuple[str, list[dict[str, str]]]:
    """Return the printed text and the rows of the CSV."""
    printed = io.StringIO()
    report_sharpness(start, Console(width=80, file=printed))
    with start.out.open(newline="") as file:
        return printed.getvalue(), list(csv.DictReader(file))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Run a first command; return its results folder, its output and its rows."""
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
    assert "ID-LoRA, rows of one norm" in " ".join(text.split())
    assert max(map(len, text.split("written")[0].splitlines())) <= 80


def test_norms_are_those_of_the_rows_that_the_input_is_multiplied_by(first):
    start = asked(first[0])
    norms = {(row["method"], row["module"]): float(row["a_row_norm"]) for row in first[2]}
    for method in start.methods:
        model = build_adapted(build_base(start.model)[0], method, 0)
        tensors = {name: each for name, each in model.state_dict().items() if "_A.default" in name and "v_proj" in name}
        assert len(tensors) == model.config.num_hidden_layers
        mean = statistics.fmean(float(each.norm(dim=1).mean()) for each in tensors.values())
        assert norms[method.name, "v_proj"] == pytest.approx(mean, rel=1e-5)


def test_what_is_there_is_not_measured_again_and_another_rate_alpha_or_data_is(first, monkeypatch):
    results, _, rows = first
    measured = []

    def measure(start, method, head):
        measured.append(head["rate"])
        own = {key: head[key] for key in ("trained", "rate", "setting")}
        return [row | own for row in rows if row["method"] == method.name]

    monkeypatch.setattr(sharpness, "measure", measure)
    assert reported(asked(results))[1] == rows
    assert measured == []
    start = asked(results, "methods=lora")
    (lora,) = start.methods
    others = [
        asked(results, "methods=[lora]", "rate=1e-2"),
        asked(results, "methods=[lora]", "data=gsm8k"),
        dataclasses.replace(start, methods=(dataclasses.replace(lora, arguments=lora.arguments | {"lora_alpha": 99}),)),
        dataclasses.replace(start, kinds=("q_proj",)),
        asked(results, "methods=[lora]", "iterations=4"),  # the eigenvalue had not been found
    ]
    for number, other in enumerate(others, start=1):
        reported(other)
        assert len(measured) == number
    assert measured[0] == 0.01


def test_a_method_without_an_a_has_no_norm_and_takes_the_seed_and_modules_of_the_command(tmp_path):
    start = asked(tmp_path, "methods=[fft,idlora]", "seed=3", "train.target_modules=[q_proj]", "train.dropout=0.2")
    expected = {"seed": 3, "target_modules": ["q_proj"], "lora_dropout": 0.2}
    assert expected.items() <= start.methods[1].arguments.items()
    _, rows = reported(start)
    assert [(row["method"], row["module"], bool(row["a_row_norm"])) for row in rows] == [
        (method, module, method == "idlora") for method in ("fft", "idlora") for module in ("q_proj", "all")
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["rows=0"],
        ["iterations=0"],
        ["rate=0"],
        ["methods=dorra"],
        ["methods=[]"],
        ["methods=base"],
        ["model.path_or_id=./nowhere"],
        ["rows=1000000"],
        ["methods=[fft]", "train.target_modules=[w_proj]"],
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_value(overrides, tmp_path):
    with pytest.raises(ConfigError, match=overrides[-1].split("=")[1].strip("[]") or "methods"):
        report_sharpness(asked(tmp_path, *overrides))
