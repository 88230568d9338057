"""A run's folder: the states that it walks, what survives a kill, and who may start it."""

import json
import os

import pytest

from reproduction.records import STATES, RecordError, Run, find_runs, run_name, write_json


def config(**changes):
    return {
        "experiment": "gsm8k_llama3",
        "scale": "tiny",
        "seed": 0,
        "model": {"name": "pebble"},
        "method": {"name": "lora", "kind": "peft"},
        "data": {"name": "gsm8k"},
        "train": {"learning_rate": 1e-4},
    } | changes


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / run_name(config()))


def test_a_run_walks_from_nothing_over_running_to_done(run):
    assert run.state is None
    assert run.resources == {}
    run.start(config())
    assert (run.state, run.config, run.done) == ("running", config(), False)
    run.finish({"parameters_trainable": 7})
    assert (run.state, run.done, run.resources) == ("done", True, {"parameters_trainable": 7})
    assert run.status["started"] <= run.status["ended"]


def test_a_done_run_is_never_started_again(run):
    run.start(config())
    run.finish({})
    with pytest.raises(RecordError, match="is done"):
        run.start(config())


@pytest.mark.parametrize("state", ["oom", "failed", "interrupted"])
def test_a_run_that_ended_badly_says_why_and_may_start_again(run, state):
    run.start(config())
    run.fail(state, "the reason")
    assert (run.state, run.status["reason"], run.done) == (state, "the reason", False)
    run.start(config())
    assert (run.state, run.status["attempts"]) == ("running", 2)


def test_running_found_at_start_is_an_attempt_that_was_killed(run):
    run.start(config())
    again = Run(run.folder)
    again.start(config())
    assert again.status["attempts"] == 2
    assert "killed" in again.status["reason"]


def test_only_the_closed_set_of_states_is_written_or_read(run):
    run.start(config())
    for state in ("done", "running", "weird", ""):
        with pytest.raises(ValueError, match="oom, failed, interrupted"):
            run.fail(state, "why")
    with pytest.raises(ValueError, match="with a reason"):
        run.fail("failed", " ")
    write_json(run.folder / "status.json", {"state": "weird"})
    with pytest.raises(RecordError, match=", ".join(STATES)):
        _ = run.state


def test_only_a_running_run_ends(run):
    with pytest.raises(RecordError, match="start it first"):
        run.finish({})
    run.start(config())
    run.finish({})
    with pytest.raises(RecordError, match="'done'"):
        run.fail("failed", "why")


def test_a_folder_takes_no_run_of_another_config_but_one_under_another_label(run):
    run.start(config())
    with pytest.raises(RecordError, match="another config"):
        run.start(config(seed=1))
    run.start(config(model={"name": "pebble", "label": "Pebble"}))
    assert run.config["model"]["label"] == "Pebble"


def test_provenance_says_which_code_and_versions_and_names_no_place(run):
    run.start(config())
    provenance = run.provenance
    assert provenance["packages"]["numpy"]
    assert set(provenance["git"]) == {"commit", "dirty"}
    assert os.path.expanduser("~") not in json.dumps(provenance)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(run, monkeypatch):
    run.start(config())

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match=r"cannot write .*status\.json: No space left on device; put that right"):
        run.fail("failed", "why")
    assert run.state == "running"
    assert not list(run.folder.glob(".*"))


def test_a_broken_file_is_one_sentence_with_the_way_out(run):
    run.start(config())
    (run.folder / "status.json").write_text("{")
    with pytest.raises(RecordError, match=r"status\.json is not JSON .* run the cell again"):
        _ = run.status
    (run.folder / "config.json").write_text("[]")
    with pytest.raises(RecordError, match="holds a list"):
        _ = run.config


def test_runs_are_found_by_name(tmp_path):
    for seed in (1, 0):
        asked = config(seed=seed)
        Run(tmp_path / run_name(asked)).start(asked)
    (tmp_path / "not a run").mkdir()
    assert [run.config["seed"] for run in find_runs(tmp_path)] == [0, 1]
    assert find_runs(tmp_path / "nowhere") == []
