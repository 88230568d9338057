"""The learning-rate search: equal trials, the lowest held-out loss, and nothing searched twice."""

import csv
from pathlib import Path

import pytest
import yaml

from idlora.pipeline.compose import compose_cell
from idlora.pipeline.tuning import Trial, choose, search, trials_of
from idlora.pipeline.typed import ConfigError
from idlora.records.identity import run_digest
from idlora.report import load_grid


def trial(method: str, rate: float, loss: float) -> Trial:
    return Trial(
        experiment="e", method=method, learning_rate=rate, heldout_loss=loss, outcome="done", config=f"{method}{rate}"
    )


def test_the_lowest_heldout_loss_wins_for_each_method() -> None:
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
    asked = set(yaml.safe_load((repository / "experiments/tuning/trials.yaml").read_text())["learning_rates"])
    assert {frozenset(group) for group in rates.values()} == {frozenset(asked)}
    grids = [load_grid(path.parent) for path in repository.glob("experiments/*/grid.yaml")]
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


def test_the_committed_choices_follow_from_the_committed_trials(repository: Path) -> None:
    folder = repository / "experiments/tuning/tiny"
    with (folder / "trials.csv").open(newline="") as file:
        trials = [
            Trial(**row | {name: float(row[name]) for name in ("learning_rate", "heldout_loss")})
            for row in csv.DictReader(file)
        ]
    with (folder / "chosen.csv").open(newline="") as file:
        written = {(row["experiment"], row["method"]): float(row["learning_rate"]) for row in csv.DictReader(file)}
    assert {(choice.experiment, choice.method): choice.learning_rate for choice in choose(trials)} == written


def test_a_search_goes_on_where_it_stopped_and_scores_on_rows_it_did_not_train_on(tmp_path: Path) -> None:
    overrides = [
        f"results_dir={tmp_path}", "data.limit=32", "data.validation_rows=16", "train.max_steps=1", "threads=1",
    ]  # fmt: skip
    cells = [
        compose_cell(
            "saferpaca_llama3", "lora", scale="tiny", seed=0, overrides=[*overrides, f"train.learning_rate={rate}"]
        )
        for rate in (1e-3, 1e-2)
    ]
    told: list[Trial] = []
    first = search(cells[:1], folder=tmp_path, workers=1, told=told.append)
    again = search(cells, folder=tmp_path, workers=1, told=told.append)
    assert [each.learning_rate for each in told] == [1e-3, 1e-2]
    assert told[0].heldout_loss != told[1].heldout_loss
    assert first[0].learning_rate == 1e-3
    assert again[0].heldout_loss == pytest.approx(min(each.heldout_loss for each in told), rel=1e-4)
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 3
    # The rate of a pair that is not searched stays, and none is chosen for it from its trials.
    other = "other,lora,0.5,1.25,False"
    with (tmp_path / "chosen.csv").open("a") as file:
        file.write(other + "\n")
    with (tmp_path / "trials.csv").open("a") as file:
        file.write("half_searched,lora,0.1,0.1,done,c0ffee\n")
    search(cells, folder=tmp_path, workers=1, told=told.append)
    kept = (tmp_path / "chosen.csv").read_text()
    assert other in kept
    assert "half_searched" not in kept
    assert len(told) == 2
    with pytest.raises(ConfigError, match="workers=0 try nothing"):
        search(cells, folder=tmp_path, workers=0, told=told.append)


@pytest.mark.parametrize(("experiment", "method"), [("gsm8k_llama3", "idlora"), ("multitask_llama3_2_3b", "vera")])
def test_the_committed_trials_are_of_todays_configs(experiment: str, method: str, repository: Path) -> None:
    plan = yaml.safe_load((repository / "experiments/tuning/trials.yaml").read_text())
    rates, held = plan["learning_rates"], f"data.validation_rows={plan['validation_rows']}"
    cell = compose_cell(
        experiment, method, scale="tiny", seed=plan["seed"], overrides=[held, f"train.learning_rate={rates[0]}"]
    )
    with (repository / "experiments/tuning/tiny/trials.csv").open(newline="") as file:
        tried = {
            row["config"] for row in csv.DictReader(file) if (row["experiment"], row["method"]) == (experiment, method)
        }
    assert tried == {run_digest(each.config) for each in trials_of(cell, rates)}
