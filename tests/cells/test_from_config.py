"""Configs to cells: values of every combination, contents of a cell's identity, refusals."""

import csv
from pathlib import Path

import pytest
from committed_tables import committed_grids, committed_pairs

from reproduction.cells import from_config
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.tuned_rates import chosen_csv

EXPERIMENTS = [f"{data}_{model}" for data in ("gsm8k", "codealpaca", "saferpaca") for model in ("llama3", "mistral")]

GRIDS = committed_grids("tiny", "small")
PAIRS = {experiment: method for grid in GRIDS for experiment, method, _ in grid.cells()}  # every experiment once

# Table 4 of the paper: learning rate and epochs; the rest is the same in every column.
TABLE_4 = {
    "gsm8k_llama3": (5e-5, 3),
    "gsm8k_mistral": (3e-5, 3),
    "codealpaca_llama3": (5e-5, 2),
    "codealpaca_mistral": (5e-5, 2),
    "saferpaca_llama3": (1e-4, 2),
    "saferpaca_mistral": (1e-4, 2),
}


@pytest.fixture
def cell(tmp_path: Path):
    def compose(experiment: str = "gsm8k_llama3", method: str = "idlora", scale: str = "tiny", seed: int = 0, **more):
        overrides = [f"results_dir={tmp_path}", *(f"{key}={value}" for key, value in more.items())]
        return compose_cell(experiment, method, scale=scale, seed=seed, overrides=overrides)

    return compose


@pytest.mark.parametrize("experiment", EXPERIMENTS[1::2])
def test_the_papers_scale_has_the_papers_hyperparameters(experiment: str, cell) -> None:
    composed = cell(experiment, "idlora", "paper")
    learning_rate, epochs = TABLE_4[experiment]
    assert composed.train.learning_rate == learning_rate
    assert (composed.train.epochs, composed.train.max_steps) == (epochs, None)
    assert (composed.train.batch_size, composed.train.warmup_steps) == (32, 0)
    assert composed.train.optimizer == "adamw_torch"
    arguments = composed.method.arguments
    assert (arguments["r"], arguments["lora_alpha"], arguments["lora_dropout"]) == (128, 256, 0.05)
    assert len(arguments["target_modules"]) == 7


def test_every_experiment_of_a_table_composes_at_the_papers_scale(cell) -> None:
    for experiment, method in PAIRS.items():  # filling the tables composes all cells of the tiny scale
        composed = cell(experiment, method, "paper")
        assert composed.method.name == method
        assert composed.protocols
        assert (composed.train.learning_rate is None) == (method == "base")


def test_the_tiny_scale_uses_the_tuned_learning_rates(cell) -> None:
    with chosen_csv("tiny").open(newline="") as file:
        chosen = {(row["experiment"], row["method"]): float(row["learning_rate"]) for row in csv.DictReader(file)}
    assert set(chosen) >= committed_pairs("tiny")
    for (experiment, method), rate in list(chosen.items())[::20]:
        assert cell(experiment, method).train.learning_rate == rate
    assert cell(hparams="paper").train.learning_rate == 5e-5
    assert cell(**{"train.learning_rate": 0.5}).train.learning_rate == 0.5


def test_what_is_computed_names_the_run_and_how_it_is_run_here_does_not(cell) -> None:
    base = cell(hparams="default").run.name
    for change in (
        {"train.learning_rate": 0.123}, {"method.arguments.r": 8}, {"data.limit": 64}, {"seed": 1},
        {"method.protocol_version": 99}, {"model": "mistral_7b"},
    ):  # fmt: skip
        assert cell(hparams="default", **change).run.name != base, change
    here = {"threads": 1, "allow_code_execution": "true", "train.micro_batch_size": 8, "eval_batch_size": 3}
    assert cell(hparams="default", **here, **{"eval.gsm8k.protocol_version": 2}).run.name == base
    assert len({cell(experiment, "base").run.name for experiment in EXPERIMENTS[:3]}) == 2  # an untuned base: one run


def test_other_data_is_another_run(cell, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "gsm8k"
    copy.mkdir(parents=True)
    source = cell().data_root / "gsm8k"
    for name in ("train.jsonl", "test.jsonl"):
        (copy / name).write_bytes((source / name).read_bytes())
    same = cell(data_root=copy.parent)  # copies of the same bytes have the tuned rate too
    assert same.data.digest == cell().data.digest
    (copy / "train.jsonl").write_bytes(
        (source / "train.jsonl").read_bytes() + b'{"question": "?", "answer": "#### 1"}\n'
    )
    assert cell(data_root=copy.parent, hparams="default").data.digest != same.data.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train.learning_rate": "fast"}, ["train.learning_rate", "fast"]),
        ({"+train.learningrate": 1}, ["learningrate", "learning_rate"]),
        ({"train.batch_size": 0}, ["batch_size", "0"]),
        ({"model.path_or_id": "tinyworld/boulder"}, ["boulder", "pebble"]),
        ({"model.path_or_id": "./nowhere"}, ["nowhere", "config.json"]),
        ({"data_root": "nowhere"}, ["nowhere"]),
        ({"eval.gsm8k.samples": 0}, ["samples", "0"]),
        ({"method": "magic"}, ["magic"]),
        ({"data.packing": "true", "model.attention": "flash_attention_2"}, ["model.attention=flash_attention_2"]),
    ],
)
def test_a_bad_value_is_refused_with_the_key_and_the_value(change: dict, words: list[str], cell) -> None:
    with pytest.raises(ConfigError) as refused:
        cell(**change)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("method", "gpus", "mode", "processes"),
    [("fft", 2, "zero3", 2), ("idlora", 2, "ddp", 2), ("idlora", 1, "single", 1), ("lora", 0, "single", 1)],
)
def test_a_cell_of_the_papers_scale_takes_every_visible_gpu(method, gpus, mode, processes, monkeypatch):
    monkeypatch.setattr(from_config, "visible_gpus", lambda: gpus)
    cell = compose_cell(
        "multitask_llama3", method, scale="paper", seed=0, overrides=["data.root=.", "model.init=random"]
    )
    assert (cell.launch.mode, cell.launch.processes) == (mode, processes)
    assert (cell.train.deepspeed is not None) is (mode == "zero3")
    assert f"32 rows a step = {processes} process(es)" in cell.division


def test_a_cell_of_the_embedded_scale_is_one_process_on_any_machine(monkeypatch):
    monkeypatch.setattr(from_config, "visible_gpus", lambda: 8)
    assert compose_cell("gsm8k_llama3", "fft", scale="tiny", seed=0).launch.mode == "single"


def test_a_hub_id_that_is_a_folder_here_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="owner/model"):
        compose_cell("gsm8k_llama3", "lora", scale="paper", seed=0, overrides=["model.path_or_id=owner/model"])
