"""Trials of a search: what a setting has had says what it gets next, nothing is run twice, others' rows are kept."""

import csv
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.tuned_rates import CHOOSING, setting
from reproduction.commands.search import choose, search
from reproduction.commands.trials import Chosen, Trial, read_rows, trials_of
from reproduction.commands.tuning import Asked
from reproduction.records.identity import run_digest
from reproduction.running.pool import Ended


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

    monkeypatch.setattr("reproduction.commands.search.run_jobs", run_here)
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
