"""A run's folder: its states, its content after a kill, and the conditions of a start."""

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


def test_a_run_walks_from_nothing_over_running_to_done_and_is_not_started_again(run):
    assert (run.state, run.resources) == (None, {})
    with pytest.raises(RecordError, match="None"):
        run.finish({})
    run.start(config())
    assert (run.state, run.config, run.done) == ("running", config(), False)
    assert run.provenance["packages"]["numpy"]
    assert set(run.provenance["git"]) == {"commit", "dirty"}
    assert os.path.expanduser("~") not in json.dumps(run.provenance)
    run.finish({"parameters_trainable": 7})
    assert (run.state, run.done, run.resources) == ("done", True, {"parameters_trainable": 7})
    assert run.status["started"] <= run.status["ended"]
    with pytest.raises(RecordError, match="is done"):
        run.start(config())
    with pytest.raises(RecordError, match="'done'"):
        run.fail("failed", "why")


@pytest.mark.parametrize("state", ["oom", "failed", "interrupted", "running"])
def test_a_run_that_ended_badly_or_was_killed_says_why_and_may_start_again(run, state):
    run.start(config())
    if state != "running":
        run.fail(state, "the reason")
        assert (run.status["reason"], run.done) == ("the reason", False)
    assert run.state == state
    again = Run(run.folder)
    again.start(config())
    assert (again.state, again.status["attempts"]) == ("running", 2)
    assert ("killed" in again.status["reason"]) == (state == "running")


def test_only_the_closed_set_of_states_is_written_or_read(run):
    run.start(config())
    for state, reason in (("done", "why"), ("running", "why"), ("weird", "why"), ("failed", " ")):
        with pytest.raises(ValueError, match="oom, failed, interrupted"):
            run.fail(state, reason)
    for damaged in ({"state": "weird"}, {"state": "done", "attempts": "two"}):
        write_json(run.folder / "status.json", damaged)
        with pytest.raises(RecordError, match=", ".join(STATES)):
            _ = run.state


def test_a_folder_takes_no_run_of_another_config_but_one_under_another_label(run):
    run.start(config())
    with pytest.raises(RecordError, match="another config"):
        run.start(config(seed=1))
    run.start(config(model={"name": "pebble", "label": "Pebble"}))
    assert run.config["model"]["label"] == "Pebble"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(run, monkeypatch):
    run.start(config())

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match=r"cannot write .*status\.json: No space left on device"):
        run.fail("failed", "why")
    assert run.state == "running"
    assert not list(run.folder.glob(".*"))


def test_a_broken_file_is_named(run):
    run.start(config())
    for name, text, read in (
        ("status.json", "{", lambda: run.status),
        ("config.json", "[]", lambda: run.config),
        ("config.json", "{}", lambda: run.config),
        ("seconds.json", '{"seconds": "two"}', lambda: run.seconds),
    ):
        (run.folder / name).write_text(text)
        with pytest.raises(RecordError, match=name):
            read()


def test_runs_are_found_by_name(tmp_path):
    for seed in (1, 0):
        Run(tmp_path / run_name(config(seed=seed))).start(config(seed=seed))
    (tmp_path / "not a run").mkdir()
    assert [run.config["seed"] for run in find_runs(tmp_path)] == [0, 1]
    assert find_runs(tmp_path / "nowhere") == []
