"""Requests of a learning-rate search, the committed rates, and single trials."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from committed_tables import committed_pairs

from reproduction.cells import tuned_rates
from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.tuned_rates import CHOOSING, trials_plan
from reproduction.commands.search import choose
from reproduction.commands.trials import Chosen, Trial, heldout_loss, read_rows, run_trial, trials_of
from reproduction.commands.tuning import asked_pairs, asked_trials
from reproduction.records import read_items
from reproduction.records.identity import run_digest
from reproduction.running.progress import NullProgress
from reproduction.running.train import run_cell, train_here
from reproduction.training import NonFiniteLoss, TrainSpec


def test_every_method_had_the_same_trials(repository: Path) -> None:
    with (repository / "experiments/tuning/tiny/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rates: dict[tuple[str, str], set[float]] = {}
    for row in rows:
        rates.setdefault((row["experiment"], row["method"]), set()).add(float(row["learning_rate"]))
    assert {frozenset(group) for group in rates.values()} == {frozenset(trials_plan("tiny").learning_rates)}
    assert set(rates) >= committed_pairs("tiny")


def test_a_longer_training_takes_the_rate_of_its_trials_and_is_searched_by_them() -> None:
    longer, short = (
        compose_cell(experiment, "idlora", scale="small", seed=0)
        for experiment in ("multitask_llama3_full", "multitask_llama3")
    )
    assert longer.train.learning_rate == short.train.learning_rate
    assert (longer.train.max_steps, longer.as_tried.train.max_steps) == (None, short.train.max_steps)
    assert run_digest(longer.as_tried.config) == run_digest(short.config) != run_digest(longer.config)
    shared = {"table": "all", "experiments": ["multitask_llama3_full"], "methods": ["idlora"], "scale": "small"}
    asked = asked_trials(shared | {"data_root": None, "results_dir": None, "overrides": []})
    assert {each.train.max_steps for each in asked.trials} == {200}


@pytest.mark.parametrize("scale", ["tiny", "small"])
def test_the_committed_choices_follow_from_the_committed_trials_and_lie_inside_their_rates(
    scale: str, repository: Path
) -> None:
    folder = repository / "experiments/tuning" / scale
    trials = read_rows(folder / "trials.csv", Trial)
    asked, every = committed_pairs(scale), choose(trials)
    inside = [each for each in every if not each.at_edge or (each.experiment, each.method) not in asked]
    chosen = {each.setting: each for each in inside}
    written = {each.setting: each for each in read_rows(folder / "chosen.csv", Chosen)}
    assert written.items() <= chosen.items()
    assert len(written) >= 8
    assert scale == "small" or written.keys() == {each.setting for each in trials}


PLACES = {"data_root": None, "results_dir": None, "overrides": []}


def asked(**named) -> dict[str, object]:
    return {"scale": "tiny", "table": ["table1", "table8"], "experiments": None, "methods": None} | named


def test_a_search_pairs_what_is_named_with_what_the_tables_pair_it_with() -> None:
    everything = asked_pairs(asked())
    assert ("gsm8k_llama3", "dora") in everything
    assert ("gsm8k_llama3", "idlora_k2") not in everything
    assert not [pair for pair in everything if pair[1] == "base"]
    assert asked_pairs(asked(methods="idlora_k2")) == [("multitask_llama3_2_3b", "idlora_k2")]
    assert asked_pairs(asked(experiments=["multitask_llama3_2_3b"])) == [
        pair for pair in everything if pair[0] == "multitask_llama3_2_3b"
    ]
    # The search that a refused cell outside all tables suggests.
    assert asked_pairs(asked(methods=["idlora_k2"], experiments=["gsm8k_llama3"])) == [("gsm8k_llama3", "idlora_k2")]


def test_a_method_of_no_table_is_searched_on_all_experiments_and_an_experiment_with_all_methods() -> None:
    experiments = {experiment for experiment, _ in asked_pairs(asked())}
    assert set(asked_pairs(asked(methods=["vera"]))) == {(experiment, "vera") for experiment in experiments}
    methods = {method for _, method in asked_pairs(asked())}
    pairs = asked_pairs(asked(experiments=["multitask_mistral"]))
    assert set(pairs) == {("multitask_mistral", method) for method in methods}


@pytest.mark.parametrize("name", ["lor", "base"])
def test_a_name_that_is_nowhere_and_what_trains_nothing_are_refused_with_the_names_that_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"methods={name} is in none .*\blora\b"):
        asked_pairs(asked(methods=[name]))


def test_some_methods_have_all_rates_and_the_others_the_few_of_their_kind() -> None:
    plan = trials_plan("small")
    values = {"table": "all", "experiments": ["gsm8k_llama3", "multitask_llama3_2_3b"], "scale": "small"}
    values |= {"methods": ["idlora", "lora_fa", "fft"], "data_root": None, "results_dir": None, "overrides": []}
    asked = asked_trials(values)
    found: dict[tuple[str, str], list[float]] = {}
    for cell in asked.trials:
        found.setdefault((cell.data.name, cell.method.name), []).append(cell.train.learning_rate)
    few = {"idlora": [*plan.few["peft"]], "lora_fa": [*plan.few["peft"]], "fft": [*plan.few["full"]]}
    of = {(data, method): rates for data in ("multitask", "gsm8k") for method, rates in few.items()}
    assert found == of | {("multitask", "idlora"): [*plan.learning_rates]}
    assert next(iter(found)) == ("multitask", "idlora")
    (longer,) = asked.longer.values()
    assert (longer.method.name, longer.train.learning_rate, longer.train.max_steps) == ("idlora", 5e-5, 1900)
    assert asked.trials[0].data.validation_rows == longer.data.validation_rows == plan.validation_rows


def test_a_trial_has_the_held_out_loss_of_the_table(tmp_path: Path) -> None:
    """Compare with the column "mean of the sources": the mean over the sources of nats per token."""
    overrides = [f"results_dir={tmp_path}", "data.limit=32", "train.max_steps=1", "train.learning_rate=1e-3"]
    overrides += ["eval.heldout.limit=40"]
    cell = compose_cell("multitask_llama3", "lora", scale="tiny", seed=0, overrides=overrides)
    heldout = replace(cell, protocols=tuple(each for each in cell.protocols if each.benchmark == "heldout"))
    run_cell(heldout)
    means = []
    for protocol in heldout.protocols:
        items = read_items(heldout.eval_job.eval_folder(protocol))
        weights = [item["weights"]["nats_per_token"] for item in items]
        nats = [item["scores"]["nats_per_token"] * weight for item, weight in zip(items, weights, strict=True)]
        means.append(sum(nats) / sum(weights))
    scored = replace(cell, data=replace(cell.data, validation_rows=0))
    model, tokenizer = heldout.eval_job.load()
    assert len(means) == 5
    assert heldout_loss(model, tokenizer, scored) == pytest.approx(sum(means) / 5, rel=1e-5)


OWN = {
    "method/mine.yaml": "defaults: [lora]\nname: mine\nlabel: Mine\narguments: {r: 2, lora_alpha: 4}\n",
    "experiment/brief.yaml": (
        "# @package _global_\ndefaults: [gsm8k_llama3]\nexperiment: brief\ndata: {limit: 48}\ntrain: {max_steps: 1}\n"
    ),
    "tuning/trials.yaml": f"tiny: {{learning_rates: [1.0e-3, 1.0e-2], {CHOOSING}: 16, seed: 0}}\n",
}


def test_a_method_of_ones_own_is_searched_and_then_trains_at_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script, jobs_here
) -> None:
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuned_rates, "TUNING", tmp_path / "tuning")
    own = ("--config-dir", ".", "scale=tiny", f"results_dir={tmp_path / 'results'}")
    training = (*own, "experiment=brief", "method=mine", "seed=1")
    refused = script("train", *training)
    assert refused.returncode == 2
    assert "`make tune METHOD=mine EXPERIMENT=brief SCALE=tiny`" in refused.stderr
    searched = script("tune", *own, "methods=[mine]", "experiments=[brief]", "workers=1")
    assert searched.returncode == 0, searched.stderr
    trained = script("train", *training)
    assert trained.returncode == 0, trained.stderr
    (row,) = csv.DictReader((tmp_path / "tuning/tiny/chosen.csv").read_text().splitlines())
    (config,) = (tmp_path / "results/tiny/runs").glob("*/config.json")
    assert json.loads(config.read_text())["train"]["learning_rate"] == float(row["learning_rate"])


@pytest.mark.parametrize(("experiment", "method"), [("gsm8k_llama3", "idlora"), ("multitask_llama3_2_3b", "vera")])
def test_the_committed_trials_are_of_todays_configs(experiment: str, method: str, repository: Path) -> None:
    plan = trials_plan("tiny")
    rates, held = plan.learning_rates, f"data.{CHOOSING}={plan.validation_rows}"
    cell = compose_cell(
        experiment, method, scale="tiny", seed=plan.seed, overrides=[held, f"train.learning_rate={rates[0]}"]
    )
    with (repository / "experiments/tuning/tiny/trials.csv").open(newline="") as file:
        tried = {
            row["config"] for row in csv.DictReader(file) if (row["experiment"], row["method"]) == (experiment, method)
        }
    assert tried == {run_digest(each.config) for each in trials_of(cell, rates)}


def test_what_is_trained_was_fitted_to_the_memory_as_its_rows_are_packed(tmp_path: Path, monkeypatch) -> None:
    asked = ["train.learning_rate=0.01", f"results_dir={tmp_path}", "data.limit=40", "data.validation_rows=4"]
    cell, seen = compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=asked), {}

    def fitted_now(cell: Cell, *, packing: object) -> Cell:
        seen["packing"] = packing
        return replace(cell, train=replace(cell.train, micro_batch_size=3))

    def train(*, spec: TrainSpec, **_: object) -> None:
        seen["rows"] = spec.micro_batch_size
        raise NonFiniteLoss("enough was seen")

    for module in ("running.train", "commands.trials"):
        monkeypatch.setattr(f"reproduction.{module}.fitted_now", fitted_now)
    monkeypatch.setattr("reproduction.training.trainer.packing_of", lambda *_: "as rows are packed")
    monkeypatch.setattr("reproduction.training.trainer.train", train)
    assert run_trial(cell, NullProgress()).outcome == "diverged"
    assert seen == {"packing": "as rows are packed", "rows": 3}
    seen.clear()
    with pytest.raises(NonFiniteLoss):
        train_here(cell, NullProgress())
    assert seen == {"packing": "as rows are packed", "rows": 3}
