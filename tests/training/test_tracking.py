"""Tracking by W&B and TensorBoard: the logged values, and trainings that survive a failing tracker."""

import json
import logging
import sys
from dataclasses import replace

import pytest
import wandb
from cells import METHODS, furthest, run, saved_weights, schedule
from tracked_runs import tensorboard_history, wandb_config, wandb_history, wandb_records

from reproduction.training import TrackingSpec, WandbSpec, tracking

OFFLINE = TrackingSpec(wandb=WandbSpec(mode="offline", project="tests"))
EVENTS = TrackingSpec(tensorboard=True)
BOTH = replace(OFFLINE, tensorboard=True)
CONFIG = {"experiment": "gsm8k_small", "scale": "tiny", "train": {"learning_rate": 0.5}}
SHORT = schedule(max_steps=2)


def warnings_in(caplog) -> list[str]:
    """Return this project's warnings, without those of other packages."""
    ours = [record for record in caplog.records if record.name.startswith("reproduction.")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.fixture
def folder(tmp_path):
    """A run's folder at the start of its training."""
    folder = tmp_path / "small-words-s0-0123456789"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.mark.build
def test_a_followed_training_is_the_same_to_the_bit_and_its_trackers_know_every_step(
    base, tokenized, folder, tmp_path, capfd, caplog
):
    idlora = METHODS["idlora"]
    method = replace(idlora, arguments={**idlora.arguments, "lora_dropout": 0.3})
    spec = schedule(max_steps=11, epochs=3, micro_batch_size=4, gradient_checkpointing=True)
    run(tmp_path / "alone", base, method, tokenized, spec, tracking=TrackingSpec())
    assert not {"wandb", "tensorboard"} & {path.name for path in (tmp_path / "alone").iterdir()}
    run(folder, base, method, tokenized, spec, tracking=BOTH)
    assert furthest(saved_weights(folder), saved_weights(tmp_path / "alone")) == 0
    log = (folder / "train_log.jsonl").read_text()
    assert log == (tmp_path / "alone" / "train_log.jsonl").read_text()
    printed, complained = capfd.readouterr()
    assert (printed, "wandb" in complained, warnings_in(caplog)) == ("", False, [])

    (followed,) = folder.glob("wandb/offline-run-*")
    history = wandb_history(followed)
    assert list(history) == list(range(1, 12))
    for line in map(json.loads, log.splitlines()):
        known = history[line["step"]]
        assert {name: known[name] for name in ("loss", "learning_rate", "grad_norm")}.items() <= line.items()
        assert known["tokens_per_second"] > 0
        assert 0.01 < known["peak_memory_gib"] < 100
        assert ("router_entropy" in known) == (line["step"] in (1, 10))
    assert history[1]["router_entropy"] == pytest.approx(1)  # routers start with an even mixture
    assert 0 < history[10]["router_entropy"] < 1 - 1e-9
    events = tensorboard_history(folder / "tensorboard")
    assert events.keys() == history.keys()
    assert all(events[step] == pytest.approx(figures, rel=1e-6) for step, figures in history.items())

    records = wandb_records(followed)
    (start, *_) = [message for kind, message in records if kind == "run"]
    names = (start.run_id, start.display_name, start.run_group, start.project)
    assert names == (folder.name, folder.name, "gsm8k_small", "tests")
    config = wandb_config(followed)
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert len(config["pivots"]) == 14
    up = config["pivots"]["model.layers.0.mlp.up_proj"]
    assert (up["share"], len(up["clusters"]), sum(up["clusters"])) == (2 * 4 / 64, 4, 64)
    assert [message.exit_code for kind, message in records if kind == "exit"] == [0]


@pytest.mark.parametrize("name", ["full", "hydralora", "moelora"])
def test_every_method_is_followed_and_those_with_routers_tell_of_them(name, base, tokenized, folder):
    run(folder, base, METHODS[name], tokenized, SHORT, tracking=EVENTS)
    history = tensorboard_history(folder / "tensorboard")
    assert list(history) == [1, 2]
    assert ("router_entropy" in history[1]) == (name != "full")
    assert 0 < history[1].get("router_entropy", 0.5) < 1


def test_a_run_that_is_resumed_continues_the_same_one_and_no_step_stands_twice(base, tokenized, folder):
    spec = schedule(max_steps=8, epochs=2, save_steps=2)

    def stop(step, total, loss):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, base, METHODS["lora"], tokenized, spec, on_step=stop, tracking=BOTH)
    run(folder, base, METHODS["lora"], tokenized, spec, tracking=BOTH)
    first, second = sorted(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_ctime_ns)
    for followed, code, steps in ((first, 1, [1, 2, 3, 4, 5]), (second, 0, [5, 6, 7, 8])):
        records = wandb_records(followed)
        assert [message.exit_code for kind, message in records if kind == "exit"] == [code]
        assert {message.run_id for kind, message in records if kind == "run"} == {folder.name}
        assert list(wandb_history(followed)) == steps
    assert sorted(tensorboard_history(folder / "tensorboard")) == [1, 2, 3, 4, 5, 6, 7, 8]


def raising(*arguments, **settings):
    raise ConnectionError("the network\nis gone")


@pytest.mark.parametrize(
    ("owner", "moment"), [(wandb, "init"), (tracking.Wandb, "log"), (tracking.Wandb, "finish")], ids=str
)
def test_losing_a_tracker_at_any_moment_is_one_warning_and_the_other_goes_on(
    owner, moment, base, tokenized, folder, monkeypatch, caplog
):
    monkeypatch.setattr(owner, moment, raising)
    run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=BOTH)
    (warning,) = warnings_in(caplog)
    assert "wandb (ConnectionError: the network)" in warning
    assert sorted(tensorboard_history(folder / "tensorboard")) == [1, 2]
    assert saved_weights(folder)


def test_a_tracker_without_package_folder_or_account_is_told_with_the_way_out(
    base, tokenized, folder, tmp_path, monkeypatch, caplog
):
    (folder / "tensorboard").touch()
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "wandb", None)
        run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=BOTH)
    not_installed, not_writable = warnings_in(caplog)
    assert "`pip install wandb`" in not_installed
    assert "tensorboard (FileExistsError: " in not_writable
    caplog.clear()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    online = TrackingSpec(wandb=WandbSpec(mode="online"))
    run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=online)
    (warning,) = warnings_in(caplog)
    assert "`wandb login`" in warning
    with pytest.raises(ValueError, match="'yes'"):
        TrackingSpec(tensorboard="yes")
