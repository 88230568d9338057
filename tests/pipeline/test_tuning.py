"""The learning-rate search: equal trials, the lowest validation loss, and nothing searched twice."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest

from idlora.pipeline.cell import Cell, run_cell, train_here
from idlora.pipeline.compose import EXPERIMENTS, compose_cell
from idlora.pipeline.pool import Ended
from idlora.pipeline.progress import Silent
from idlora.pipeline.rates import CHOOSING, setting, trials_plan
from idlora.pipeline.search import choose, search
from idlora.pipeline.trials import Chosen, Trial, heldout_loss, read_rows, run_trial, trials_of
from idlora.pipeline.tuning import Asked, asked_pairs, asked_trials
from idlora.pipeline.typed import ConfigError
from idlora.records import read_items
from idlora.records.identity import run_digest
from idlora.report import load_grid
from idlora.training import NonFiniteLoss, TrainSpec


def trial(method: str, rate: float, loss: float) -> Trial:
    return Trial(
        setting=method, experiment="e", method=method, learning_rate=rate, validation_loss=loss, outcome="done",
        config=f"{method}{rate}",
    )  # fmt: skip


def test_the_lowest_validation_loss_wins_for_each_method() -> None:
    trials = [
        trial("a", 0.1, 2.0),
        trial("a", 0.2, 1.0),
        trial("a", 0.4, 3.0),
        trial("b", 0.1, 0.5),
        trial("b", 0.2, 0.6),
    ]
    chosen = {choice.method: choice for choice in choose(trials)}
    assert (chosen["a"].learning_rate, chosen["a"].at_edge) == (0.2, False)
    assert (chosen["b"].learning_rate, chosen["b"].at_edge) == (0.1, True)


def test_a_trial_that_diverged_never_wins_and_equals_go_to_the_lower_rate() -> None:
    assert choose([trial("a", 0.1, float("inf")), trial("a", 0.2, 5.0)])[0].learning_rate == 0.2
    assert choose([trial("a", 0.2, 1.0), trial("a", 0.1, 1.0)])[0].learning_rate == 0.1


def test_every_method_had_the_same_trials(repository: Path) -> None:
    with (repository / "experiments/tuning/tiny/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rates: dict[tuple[str, str], set[float]] = {}
    for row in rows:
        rates.setdefault((row["experiment"], row["method"]), set()).add(float(row["learning_rate"]))
    assert {frozenset(group) for group in rates.values()} == {frozenset(trials_plan("tiny").learning_rates)}
    grids = [load_grid(path.parent).at("tiny") for path in repository.glob("experiments/*/grid.yaml")]
    assert set(rates) == {(e, m) for grid in grids for e, m, _ in grid.cells() if m != "base"}


def test_trials_of_a_cell_differ_in_the_rate_alone(tmp_path: Path) -> None:
    cell = compose_cell(
        "saferpaca_llama3", "lora", scale="tiny", seed=0,
        overrides=[f"results_dir={tmp_path}", "train.learning_rate=0.1"],
    )  # fmt: skip
    trials = trials_of(cell, [1e-3, 0.1])
    assert [each.train.learning_rate for each in trials] == [1e-3, 0.1]
    assert trials[1] == cell
    assert trials[0].run.name != cell.run.name


@pytest.mark.parametrize("scale", ["tiny", "small"])
def test_the_committed_choices_follow_from_the_committed_trials_and_lie_inside_their_rates(
    scale: str, repository: Path
) -> None:
    folder = repository / "experiments/tuning" / scale
    trials = read_rows(folder / "trials.csv", Trial)
    chosen = {each.setting: each for each in choose(trials) if not each.at_edge}
    written = {each.setting: each for each in read_rows(folder / "chosen.csv", Chosen)}
    assert written.items() <= chosen.items()
    assert len(written) >= 8
    assert scale == "small" or written.keys() == {each.setting for each in trials}


def test_the_small_tables_that_were_searched_take_their_rates_from_the_hubs_model_too() -> None:
    """Trials ran on the weights in 4 bits and on copies of the data; a user may have the hub's."""
    rates = {}
    for table in ("table3", "table_controls"):
        grid = load_grid(EXPERIMENTS / table).at("small")
        for experiment, method, seed in grid.cells():
            cell = compose_cell(experiment, method, scale="small", seed=seed)
            assert cell.model.path_or_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
            rates[method] = cell.train.learning_rate
    chosen = read_rows(EXPERIMENTS / "tuning/small/chosen.csv", Chosen)
    assert rates == {"base": None} | {each.method: each.learning_rate for each in chosen}


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    """Two trials of one setting, a second each."""
    overrides = [
        f"results_dir={tmp_path}", "data.limit=32", f"data.{CHOOSING}=16", "train.max_steps=1", "threads=1",
        "train.learning_rate=1",
    ]  # fmt: skip
    cell = compose_cell("saferpaca_llama3", "lora", scale="tiny", seed=0, overrides=overrides)
    return trials_of(cell, [1e-3, 1e-2])


def asking(cells: Sequence[Cell], **more) -> Asked:
    return Asked(trials=cells, **({"longer": {}} | more))


def test_a_search_goes_on_where_it_stopped_and_scores_on_rows_it_did_not_train_on(tmp_path: Path, cells) -> None:
    told: list[Trial] = []
    first = search(asking(cells[:1]), folder=tmp_path, workers=1, told=told.append)
    again = search(asking(cells), folder=tmp_path, workers=1, told=told.append)
    assert [each.learning_rate for each in told] == [1e-3, 1e-2]
    assert told[0].validation_loss != told[1].validation_loss
    assert first[0].learning_rate == 1e-3
    assert again[0].validation_loss == pytest.approx(min(each.validation_loss for each in told), rel=1e-4)
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 3
    # The rate of a pair that is not searched stays, and none is chosen for it from its trials.
    other = "0123456789,other,lora,0.5,1.25,False,pebble"
    with (tmp_path / "chosen.csv").open("a") as file:
        file.write(other + "\n")
    with (tmp_path / "trials.csv").open("a") as file:
        file.write("9876543210,half_searched,lora,0.1,0.1,done,c0ffee,,,,,\n")
    search(asking(cells), folder=tmp_path, workers=1, told=told.append)
    kept = (tmp_path / "chosen.csv").read_text()
    assert other in kept
    assert "half_searched" not in kept
    assert "half_searched" in (tmp_path / "trials.csv").read_text()
    assert len(told) == 2
    with pytest.raises(ConfigError, match="workers=0 is no number of processes"):
        search(asking(cells), folder=tmp_path, workers=0, told=told.append)


def test_experiments_that_train_the_same_thing_share_their_trials_and_their_rate(tmp_path: Path, cells) -> None:
    told: list[Trial] = []
    cell, twin = cells[0], replace(cells[0], experiment="twin")
    (chosen,) = search(asking([cell, twin]), folder=tmp_path, workers=1, told=told.append)
    assert len(told) == 1
    assert (chosen.setting, chosen.experiment) == (setting(cell.config), "saferpaca_llama3")
    files = {name: (tmp_path / f"{name}.csv").read_text() for name in ("trials", "chosen")}
    for asked in ([twin], [cell], [twin, cell]):
        (again,) = search(asking(asked), folder=tmp_path, workers=1, told=told.append)
        assert (again.setting, again.learning_rate) == (chosen.setting, 1e-3)
        assert {name: (tmp_path / f"{name}.csv").read_text() for name in files} == files
    assert len(told) == 1


def test_what_an_experiment_no_longer_trains_is_dropped_unless_another_does(tmp_path: Path, cells) -> None:
    changed = replace(cells[0], data=replace(cells[0].data, max_length=200))
    twin = replace(cells[0], experiment="twin")
    before, now = setting(cells[0].config), setting(changed.config)
    rows = [
        f"{setting(each.config)},saferpaca_llama3,lora,{each.train.learning_rate:g},1.5,done,{run_digest(each.config)},,,,,pebble"
        for each in (*cells, changed)
    ]
    (tmp_path / "trials.csv").write_text("\n".join([",".join(each.name for each in fields(Trial)), *rows]) + "\n")

    def searched(*asked: Cell) -> dict[str, str]:
        """Setting → experiment of chosen.csv after a search that has nothing to run."""
        search(asking(asked), folder=tmp_path, workers=1, told=lambda trial: pytest.fail(f"{trial} was run anew"))
        lines = (tmp_path / "chosen.csv").read_text().splitlines()
        return {row["setting"]: row["experiment"] for row in csv.DictReader(lines)}

    assert searched(changed, twin) == {before: "twin", now: "saferpaca_llama3"}
    assert searched(changed) == {before: "twin", now: "saferpaca_llama3"}
    assert searched(cells[0]) == {before: "twin"}
    assert now not in (tmp_path / "trials.csv").read_text()


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
    # What the refusal of a cell that no table has advises is what is searched.
    assert asked_pairs(asked(methods=["idlora_k2"], experiments=["gsm8k_llama3"])) == [("gsm8k_llama3", "idlora_k2")]


def test_a_method_of_no_table_is_searched_on_all_experiments_and_an_experiment_with_all_methods() -> None:
    experiments = {experiment for experiment, _ in asked_pairs(asked())}
    assert set(asked_pairs(asked(methods=["vera"]))) == {(experiment, "vera") for experiment in experiments}
    methods = {method for _, method in asked_pairs(asked())}
    pairs = asked_pairs(asked(experiments=["multitask_mistral"]))
    assert set(pairs) == {("multitask_mistral", method) for method in methods}


@pytest.mark.parametrize("name", ["lor", "base"])
def test_a_name_that_is_nowhere_and_what_trains_nothing_are_refused_with_the_names_that_there_are(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"methods={name} is in none of the tables asked for; there are .*lora, .*vera"
    ):
        asked_pairs(asked(methods=[name]))


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> dict[float, float]:
    """Learning rate → the validation loss that a trial ends with: trials are told here and not trained."""
    found: dict[float, float] = {}

    def run_here(function, jobs, *, names, ended, more, **_) -> None:
        waiting = list(enumerate(jobs))
        while waiting:
            job, cell = waiting.pop(0)
            loss, rate = found.get(cell.train.learning_rate, float("inf")), cell.train.learning_rate
            ended(end := Ended(job=job, value=told_of(cell, rate, loss), error=None, seconds=1.0))
            waiting += list(enumerate((each for each, _ in more(end)), start=job + len(waiting) + 1))

    monkeypatch.setattr("idlora.pipeline.search.run_jobs", run_here)
    return found


def told_of(cell: Cell, rate: float, loss: float) -> Trial:
    return Trial(
        model=cell.model.name, experiment=cell.experiment, method=cell.method.name, learning_rate=rate,
        validation_loss=loss,
        outcome="done" if loss < float("inf") else "diverged", config=run_digest(cell.config),
        steps=cell.train.max_steps,
    )  # fmt: skip


def tried(told: Sequence[Trial]) -> list[float]:
    return [each.learning_rate for each in told]


def test_a_best_rate_at_the_edge_is_followed_by_the_next_one_until_it_is_no_longer(
    tmp_path: Path, cells, losses
) -> None:
    losses.update({1e-3: 3.0, 1e-2: 2.0, 2e-2: 1.0, 4e-2: 5.0})
    told: list[Trial] = []
    (chosen,) = search(asking(cells, extensions=4), folder=tmp_path, workers=1, told=told.append)
    assert tried(told) == [1e-3, 1e-2, 2e-2, 4e-2]
    assert (chosen.learning_rate, chosen.at_edge) == (2e-2, False)
    search(asking(cells, extensions=4), folder=tmp_path, workers=1, told=lambda trial: pytest.fail(f"{trial} again"))
    # The lower edge; what diverges is no best; and no more than was allowed.
    losses.clear()
    losses.update({1e-3: 2.0, 5e-4: 1.0, 2.5e-4: 0.5})
    for extensions, rate, edge in ((0, 1e-3, True), (1, 5e-4, True), (3, 2.5e-4, False)):
        (chosen,) = search(
            asking(cells, extensions=extensions), folder=tmp_path / str(extensions), workers=1, told=told.append
        )
        assert (chosen.learning_rate, chosen.at_edge) == (rate, edge)


def test_longer_trials_have_the_papers_rate_and_the_chosen_one_and_no_say_in_the_choice(
    tmp_path: Path, cells, losses
) -> None:
    longer = replace(cells[0], train=replace(cells[0].train, max_steps=3, learning_rate=5e-5))
    losses.update({1e-3: 2.0, 1e-2: 1.0, 2e-2: 3.0, 5e-5: 0.1})
    asked = asking(cells, extensions=1, longer={setting(cells[0].config): longer})
    told: list[Trial] = []
    (chosen,) = search(asked, folder=tmp_path, workers=1, told=told.append)
    assert (chosen.learning_rate, chosen.validation_loss) == (1e-2, 1.0)
    assert tried(told)[0] == 5e-5
    assert [(each.learning_rate, each.steps) for each in read_rows(tmp_path / "longer.csv", Trial)] == [
        (5e-5, 3), (1e-2, 3),
    ]  # fmt: skip
    assert {each.steps for each in read_rows(tmp_path / "trials.csv", Trial)} == {1}
    search(asked, folder=tmp_path, workers=1, told=lambda trial: pytest.fail(f"{trial} was run again"))


def test_what_was_found_for_another_model_in_its_place_is_kept(tmp_path: Path, cells, losses) -> None:
    losses.update({1e-3: 2.0, 1e-2: 1.0})
    others = {
        "trials": "0123456789,saferpaca_llama3,lora,0.5,1.25,done,c0ffee,,,,,qwen",
        "chosen": "0123456789,saferpaca_llama3,lora,0.5,1.25,False,qwen",
    }
    for name, row in others.items():
        columns = [each.name for each in fields(Trial if name == "trials" else Chosen)]
        (tmp_path / f"{name}.csv").write_text(f"{','.join(columns)}\n{row}\n")
    search(asking(cells), folder=tmp_path, workers=1, told=lambda trial: None)
    for name, row in others.items():
        assert row in (tmp_path / f"{name}.csv").read_text()
        assert "pebble" in (tmp_path / f"{name}.csv").read_text()


def test_every_method_has_all_rates_and_controls_the_few_around_id_loras_best() -> None:
    plan, values = trials_plan("small"), {"table": "all", "experiments": ["multitask_llama3_2_3b"]}
    values |= {"methods": ["idlora", "lora_fa", "fft"], "data_root": None, "results_dir": None, "overrides": []}
    asked = asked_trials(values | {"scale": "small"})
    found: dict[str, list[float]] = {}
    for cell in asked.trials:
        found.setdefault(cell.method.name, []).append(cell.train.learning_rate)
    assert found == {"idlora": [*plan.learning_rates], "lora_fa": [*plan.few], "fft": [*plan.learning_rates]}
    assert next(iter(found)) == "idlora"
    (longer,) = asked.longer.values()
    assert (longer.method.name, longer.train.learning_rate, longer.train.max_steps) == ("idlora", 5e-5, 1900)
    assert asked.trials[0].data.validation_rows == longer.data.validation_rows == plan.validation_rows


def test_a_trial_has_the_held_out_loss_of_the_table(tmp_path: Path) -> None:
    """The mean over the sources of nats a token, as the column "mean of the sources" has it."""
    overrides = [f"results_dir={tmp_path}", "data.limit=32", "train.max_steps=1", "train.learning_rate=1e-3"]
    cell = compose_cell("multitask_llama3", "lora", scale="tiny", seed=0, overrides=overrides)
    heldout = replace(cell, protocols=tuple(each for each in cell.protocols if each.benchmark == "heldout"))
    run_cell(heldout)
    means = []
    for protocol in heldout.protocols:
        items = read_items(heldout.subject.eval_folder(protocol))
        weights = [item["weights"]["nats_per_token"] for item in items]
        nats = [item["scores"]["nats_per_token"] * weight for item, weight in zip(items, weights, strict=True)]
        means.append(sum(nats) / sum(weights))
    scored = replace(cell, data=replace(cell.data, validation_rows=0))
    model, tokenizer = heldout.subject.load()
    assert len(means) == 5
    assert heldout_loss(model, tokenizer, scored) == pytest.approx(sum(means) / 5, rel=1e-5)


def test_experiments_that_share_a_setting_are_searched_once() -> None:
    shared = {"table": "all", "experiments": ["multitask_llama3", "multitask_llama3_2_3b"], "methods": ["lora"]}
    for scale, distinct in (("small", 1), ("tiny", 2)):
        asked = asked_trials(shared | {"scale": scale, "data_root": None, "results_dir": None, "overrides": []})
        rates = trials_plan(scale).learning_rates
        assert len(asked.trials) == 2 * len(rates)
        assert len({run_digest(each.config) for each in asked.trials}) == distinct * len(rates)


OWN = {
    "method/mine.yaml": "defaults: [lora]\nname: mine\nlabel: Mine\narguments: {r: 2, lora_alpha: 4}\n",
    "experiment/brief.yaml": (
        "# @package _global_\ndefaults: [gsm8k_llama3]\nexperiment: brief\ndata: {limit: 48}\ntrain: {max_steps: 1}\n"
    ),
    "tuning/trials.yaml": f"tiny: {{learning_rates: [1.0e-3, 1.0e-2], {CHOOSING}: 16, seed: 0}}\n",
}
SEARCHED_ELSEWHERE = """\
import pathlib, runpy, sys
from idlora.pipeline import rates
rates.TUNING = pathlib.Path("tuning").resolve()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_method_of_ones_own_is_searched_and_then_trains_at_its_rate(repository: Path, tmp_path: Path) -> None:
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = str(repository / "scripts" / f"{script}.py")
        command = [sys.executable, "-c", SEARCHED_ELSEWHERE, path, "--config-dir", ".", "scale=tiny", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    training = ("experiment=brief", "method=mine", "seed=1")
    refused = run("train", *training)
    assert refused.returncode == 2
    assert "`make tune METHOD=mine EXPERIMENT=brief SCALE=tiny`" in refused.stderr
    searched = run("tune", "methods=[mine]", "experiments=[brief]", "workers=1")
    assert searched.returncode == 0, searched.stderr
    trained = run("train", *training)
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


@pytest.mark.parametrize("work", ["trial", "cell"])
def test_what_is_trained_was_fitted_to_the_memory_as_its_rows_are_packed(
    work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["train.learning_rate=0.01", f"results_dir={tmp_path}", "data.limit=40", "data.validation_rows=4"]
    cell, seen = compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=asked), {}

    def fitted_now(cell: Cell, *, packing: object) -> Cell:
        seen["packing"] = packing
        return replace(cell, train=replace(cell.train, micro_batch_size=3))

    def train(*, spec: TrainSpec, **_: object) -> None:
        seen["rows"] = spec.micro_batch_size
        raise NonFiniteLoss("enough was seen")

    monkeypatch.setattr("idlora.pipeline.preflight.fitted_now", fitted_now)
    monkeypatch.setattr("idlora.training.trainer.packing_of", lambda *_: "as rows are packed")
    monkeypatch.setattr("idlora.training.trainer.train", train)
    if work == "trial":
        assert run_trial(cell, Silent()).outcome == "diverged"
    else:
        with pytest.raises(NonFiniteLoss):
            train_here(cell, Silent())
    assert seen == {"packing": "as rows are packed", "rows": 3}
