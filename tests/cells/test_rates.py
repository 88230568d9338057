"""Tuned learning rates: looked up by what is trained, for any experiment name and any seed."""

import csv
from pathlib import Path

import pytest
import yaml

from reproduction.cells import tuned_rates
from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import cell_from_config, compose_cell
from reproduction.cells.tuned_rates import CHOOSING, chosen_csv, setting


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def cell(results: Path):
    def composed(method: str = "lora", *more: str, experiment="gsm8k_llama3", scale="tiny", seed=0) -> Cell:
        return compose_cell(experiment, method, scale=scale, seed=seed, overrides=[f"results_dir={results}", *more])

    return composed


def committed(experiment: str, method: str) -> float:
    with chosen_csv("tiny").open(newline="") as file:
        (row,) = (each for each in csv.DictReader(file) if (each["experiment"], each["method"]) == (experiment, method))
    return float(row["learning_rate"])


@pytest.mark.parametrize(
    ("experiment", "method"),
    [("gsm8k_llama3", "lora"), ("gsm8k_llama3", "idlora"), ("multitask_llama3_2_3b", "vera")],
)
def test_every_seed_of_a_setting_has_its_rate(experiment: str, method: str, cell, results: Path) -> None:
    rate = committed(experiment, method)
    asked = [f"experiment={experiment}", f"method={method}", "scale=tiny", f"results_dir={results}"]
    for seed in (0, 3):
        composed = cell(method, experiment=experiment, seed=seed)
        assert (composed.train.learning_rate, composed.train.seed) == (rate, seed)
        assert cell_from_config(compose("train", [*asked, f"seed={seed}"])) == composed


@pytest.mark.parametrize(
    "change",
    ["data.limit=64", "train.max_steps=3", "method.arguments.r=8", "method.arguments.seed=7",
     "method.protocol_version=99"],
)  # fmt: skip
def test_what_changes_the_training_has_no_rate_and_the_command_that_searches_one_is_named(change: str, cell) -> None:
    with pytest.raises(ConfigError, match="`make tune METHOD=idlora EXPERIMENT=gsm8k_llama3 SCALE=tiny`"):
        cell("idlora", change)
    assert cell("idlora", change, "hparams=default").train.learning_rate == 0.016
    assert cell("idlora", change, "train.learning_rate=0.5").train.learning_rate == 0.5


def test_what_leaves_the_training_as_it_is_has_the_same_rate(cell) -> None:
    changes = (f"data.{CHOOSING}=16", "train.micro_batch_size=2", "threads=2", "tensorboard=true")
    assert cell("lora", *changes).train.learning_rate == committed("gsm8k_llama3", "lora")
    config = cell("lora").config
    copy = config | {"data": config["data"] | {"digest": "of a copy with other bytes"}}
    assert setting(copy) == setting(config)


def test_what_another_experiment_trains_has_that_one_s_rate(cell) -> None:
    llama3, mistral = (committed(f"codealpaca_{model}", "fft") for model in ("llama3", "mistral"))
    assert llama3 != mistral
    assert cell("fft", "model=mistral_7b", experiment="codealpaca_llama3").train.learning_rate == mistral
    assert cell("fft", "model=llama3_8b", experiment="codealpaca_mistral").train.learning_rate == llama3


def test_the_default_rate_is_one_for_each_kind_of_method(cell) -> None:
    for scale, full, peft in (("tiny", 1e-3, 1.6e-2), ("small", 1e-5, 5e-5), ("paper", 1e-5, 5e-5)):
        found = [cell(method, "hparams=default", scale=scale).train.learning_rate for method in ("fft", "lora", "base")]
        assert found == [full, peft, None]
    assert cell("base").train.learning_rate is None


def test_experiments_that_train_the_same_thing_have_one_setting_and_one_rate(cell, tmp_path, monkeypatch) -> None:
    pair = ("multitask_llama3", "multitask_llama3_2_3b")
    given = {
        scale: [cell("idlora", "train.learning_rate=0.1", experiment=each, scale=scale) for each in pair]
        for scale in ("small", "tiny")
    }
    settings = {scale: {setting(each.config) for each in cells} for scale, cells in given.items()}
    assert (len(settings["small"]), len(settings["tiny"])) == (1, 2)

    (tmp_path / "small").mkdir()
    (tmp_path / "trials.yaml").write_text(
        yaml.safe_dump({"small": {"learning_rates": [0.25], "seed": 0, CHOOSING: 16}})
    )
    (tmp_path / "small" / "chosen.csv").write_text(f"setting,learning_rate\n{settings['small'].pop()},0.25\n")
    monkeypatch.setattr(tuned_rates, "TUNING", tmp_path)
    for experiment in pair:
        for seed in (0, 1):
            tuned = cell("idlora", "hparams=tuned", experiment=experiment, scale="small", seed=seed)
            assert tuned.train.learning_rate == 0.25
    with pytest.raises(ConfigError, match="experiment=gsm8k_llama3 method=idlora scale=small"):
        cell("idlora", "hparams=tuned", experiment="gsm8k_llama3", scale="small")


def test_a_rate_serves_the_hubs_weights_and_those_of_the_file_in_4_bits_that_the_model_names_and_no_others() -> None:
    gguf = {"of": "hub/model", "sha256": "5" * 64}
    model = {"name": "mine", "revision": "main", "path_or_id": "hub/model", "checksum": None, "gguf": gguf}

    def of(**changes) -> str:
        parts = {"method": {"kind": "peft"}, "data": {"digest": "a"}, "train": {"learning_rate": 1}}
        parts |= {"seed": 0, "scale": "small"}
        return setting(parts | {"model": model | changes})

    assert of() == of(path_or_id="/a/folder", checksum="5" * 64)
    for other in (
        {"path_or_id": "/a/folder", "checksum": "6" * 64}, {"path_or_id": "hub/another"}, {"revision": "another"},
        {"gguf": None, "checksum": "5" * 64},
    ):  # fmt: skip
        assert of() != of(**other)
