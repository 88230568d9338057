"""Trials of a search: next trials follow from finished ones, nothing runs twice, other rows are kept."""

import csv
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.tuned_rates import CHOOSING, setting
from reproduction.commands.search import TrialsFailed, choose, search
from reproduction.commands.trials import Chosen, Trial, read_rows, trials_of
from reproduction.commands.tuning import Asked
from reproduction.records.identity import run_digest
from reproduction.running.pool import Ended

INF = float("inf")


@pytest.mark.parametrize(
    ("losses", "rate", "at_edge"),
    [
        ({0.1: 2.0, 0.2: 1.0, 0.4: 3.0}, 0.2, False),
        ({0.1: 0.5, 0.2: 0.6}, 0.1, True),
        ({0.1: INF, 0.2: 5.0}, 0.2, True),
        ({0.2: 1.0, 0.1: 1.0}, 0.1, True),
    ],
)
def test_the_lowest_validation_loss_wins_and_of_equals_the_lower_rate(losses, rate, at_edge):
    trials = [
        Trial(setting="s", experiment="e", method="m", learning_rate=rate, validation_loss=loss, outcome="", config="")
        for rate, loss in losses.items()
    ]
    (chosen,) = choose(trials)
    assert (chosen.learning_rate, chosen.at_edge) == (rate, at_edge)
    with pytest.raises(ValueError, match="every trial of e/m diverged"):
        choose([replace(trials[0], validation_loss=INF)])


@pytest.fixture
def cells(tmp_path) -> list[Cell]:
    """Return two trials of one setting that take a second each."""
    overrides = [
        f"results_dir={tmp_path}", "data.limit=32", f"data.{CHOOSING}=16", "train.max_steps=1", "threads=1",
        "train.learning_rate=1",
    ]  # fmt: skip
    cell = compose_cell("saferpaca_llama3", "lora", scale="tiny", seed=0, overrides=overrides)
    return trials_of(cell, [1e-3, 1e-2])


def searched(folder, cells: Sequence[Cell], **more) -> tuple[list[Chosen], list[Trial]]:
    """Return the choices of a search and the trials that it ran."""
    ran: list[Trial] = []
    asked = Asked(trials=cells, **({"longer": {}} | more))
    return search(asked, folder=folder, workers=1, on_trial=ran.append), ran


def test_a_trial_is_scored_on_rows_it_did_not_train_on(tmp_path, cells, jobs_here):
    (chosen,), ran = searched(tmp_path, cells)
    assert [each.learning_rate for each in ran] == [1e-3, 1e-2]
    assert ran[0].validation_loss != ran[1].validation_loss
    assert chosen.validation_loss == min(each.validation_loss for each in ran)
    assert searched(tmp_path, cells)[1] == []


@pytest.fixture
def losses(monkeypatch) -> dict[float, float]:
    """Replace training: maps learning rate → validation loss of its trial; a rate of 9 fails."""
    found: dict[float, float] = {}

    def run_here(function, jobs, *, ended, more, **_) -> None:
        waiting = list(enumerate(jobs))
        while waiting:
            job, cell = waiting.pop(0)
            rate = cell.train.learning_rate
            loss = found.get(rate, INF)
            trial = Trial(
                model=cell.model.name, experiment=cell.experiment, method=cell.method.name, learning_rate=rate,
                validation_loss=loss, outcome="done" if loss < INF else "diverged", config=run_digest(cell.config),
                steps=cell.train.max_steps,
            )  # fmt: skip
            ended(end := Ended(job=job, value=trial, error="KeyError: x" if rate == 9 else None, seconds=1.0))
            waiting += list(enumerate((each for each, _ in more(end)), start=job + len(waiting) + 1))

    monkeypatch.setattr("reproduction.commands.search.run_jobs", run_here)
    return found


def test_a_trial_that_fails_is_named_after_the_others_were_run(tmp_path, cells, losses):
    losses.update({1e-3: 3.0})
    with pytest.raises(TrialsFailed, match=r"1 trials failed.*\nsaferpaca_llama3/lora 9: KeyError: x"):
        searched(tmp_path, [*trials_of(cells[0], [9]), cells[0]])
    assert [each.learning_rate for each in read_rows(tmp_path / "trials.csv", Trial)] == [1e-3]


def test_a_search_goes_on_where_it_stopped_and_keeps_what_it_was_not_asked_for(tmp_path, cells, losses):
    losses.update({1e-3: 3.0, 1e-2: 2.0})
    assert [each.learning_rate for each in searched(tmp_path, cells[:1])[1]] == [1e-3]
    assert [each.learning_rate for each in searched(tmp_path, cells)[1]] == [1e-2]
    other = "0123456789,other,lora,0.5,1.25,False,pebble"
    with (tmp_path / "chosen.csv").open("a") as file:
        file.write(other + "\n")
    with (tmp_path / "trials.csv").open("a") as file:
        file.write("9876543210,half_searched,lora,0.1,0.1,done,c0ffee,,,,,\n")
    assert searched(tmp_path, cells)[1] == []
    assert other in (tmp_path / "chosen.csv").read_text()
    assert "half_searched" not in (tmp_path / "chosen.csv").read_text()
    assert "half_searched" in (tmp_path / "trials.csv").read_text()
    with pytest.raises(ConfigError, match="workers=0"):
        search(Asked(trials=cells, longer={}), folder=tmp_path, workers=0, on_trial=print)


def test_experiments_that_train_the_same_thing_share_their_trials_and_their_rate(tmp_path, cells, losses):
    losses.update({1e-3: 3.0})
    cell, twin = cells[0], replace(cells[0], experiment="twin")
    (chosen,), ran = searched(tmp_path, [cell, twin])
    assert len(ran) == 1
    assert (chosen.setting, chosen.experiment) == (setting(cell.config), "saferpaca_llama3")
    files = {name: (tmp_path / f"{name}.csv").read_text() for name in ("trials", "chosen")}
    for asked in ([twin], [cell], [twin, cell]):
        assert searched(tmp_path, asked) == ([chosen], [])
        assert {name: (tmp_path / f"{name}.csv").read_text() for name in files} == files


def test_what_an_experiment_no_longer_trains_is_dropped_unless_another_does(tmp_path, cells):
    changed = replace(cells[0], data=replace(cells[0].data, max_length=200))
    twin = replace(cells[0], experiment="twin")
    before, now = setting(cells[0].config), setting(changed.config)
    rows = [
        f"{setting(each.config)},saferpaca_llama3,lora,{each.train.learning_rate:g},1.5,done,{run_digest(each.config)},,,,,pebble"
        for each in (*cells, changed)
    ]
    (tmp_path / "trials.csv").write_text("\n".join([",".join(each.name for each in fields(Trial)), *rows]) + "\n")

    def owners(*asked: Cell) -> dict[str, str]:
        """Return setting → experiment of chosen.csv after a search without trials to run."""
        assert searched(tmp_path, asked)[1] == []
        lines = (tmp_path / "chosen.csv").read_text().splitlines()
        return {row["setting"]: row["experiment"] for row in csv.DictReader(lines)}

    assert owners(changed, twin) == {before: "twin", now: "saferpaca_llama3"}
    assert owners(changed) == {before: "twin", now: "saferpaca_llama3"}
    assert owners(cells[0]) == {before: "twin"}
    assert now not in (tmp_path / "trials.csv").read_text()


def test_a_best_rate_at_the_edge_is_followed_by_the_next_one_until_it_is_no_longer(tmp_path, cells, losses):
    losses.update({1e-3: 3.0, 1e-2: 2.0, 2e-2: 1.0, 4e-2: 5.0})
    (chosen,), ran = searched(tmp_path, cells, extensions=4)
    assert [each.learning_rate for each in ran] == [1e-3, 1e-2, 2e-2, 4e-2]
    assert (chosen.learning_rate, chosen.at_edge) == (2e-2, False)
    assert searched(tmp_path, cells, extensions=4) == ([chosen], [])
    # A best rate at the lower edge, a diverged trial that is never best, and the limit on extensions.
    losses.clear()
    losses.update({1e-3: 2.0, 5e-4: 1.0, 2.5e-4: 0.5})
    for extensions, rate, edge in ((0, 1e-3, True), (1, 5e-4, True), (3, 2.5e-4, False)):
        (chosen,), _ = searched(tmp_path / str(extensions), cells, extensions=extensions)
        assert (chosen.learning_rate, chosen.at_edge) == (rate, edge)


def test_longer_trials_have_the_papers_rate_and_the_chosen_one_and_no_say_in_the_choice(tmp_path, cells, losses):
    longer = replace(cells[0], train=replace(cells[0].train, max_steps=3, learning_rate=5e-5))
    losses.update({1e-3: 2.0, 1e-2: 1.0, 2e-2: 3.0, 5e-5: 0.1})
    asked = {"extensions": 1, "longer": {setting(cells[0].config): longer}}
    (chosen,), ran = searched(tmp_path, cells, **asked)
    assert (chosen.learning_rate, chosen.validation_loss) == (1e-2, 1.0)
    assert ran[0].learning_rate == 5e-5
    rows = read_rows(tmp_path / "longer.csv", Trial)
    assert [(each.learning_rate, each.steps) for each in rows] == [(5e-5, 3), (1e-2, 3)]
    assert {each.steps for each in read_rows(tmp_path / "trials.csv", Trial)} == {1}
    assert searched(tmp_path, cells, **asked)[1] == []


def test_what_was_found_for_another_model_in_its_place_is_kept(tmp_path, cells, losses):
    losses.update({1e-3: 2.0, 1e-2: 1.0})
    others = {
        "trials": "0123456789,saferpaca_llama3,lora,0.5,1.25,done,c0ffee,,,,,qwen",
        "chosen": "0123456789,saferpaca_llama3,lora,0.5,1.25,False,qwen",
    }
    for name, row in others.items():
        columns = [each.name for each in fields(Trial if name == "trials" else Chosen)]
        (tmp_path / f"{name}.csv").write_text(f"{','.join(columns)}\n{row}\n")
    searched(tmp_path, cells)
    for name, row in others.items():
        text = (tmp_path / f"{name}.csv").read_text()
        assert row in text
        assert "pebble" in text
