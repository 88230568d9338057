"""Runs followed by W&B and TensorBoard: what they are given, and that a training never depends on them."""

import importlib
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import wandb
from cells import METHODS, furthest, run, saved_weights, schedule
from tracked_runs import tensorboard_history, wandb_config, wandb_history, wandb_records

from reproduction.training import TrackingSpec, WandbSpec, tracking

HERE = Path(__file__).parent
OFFLINE = TrackingSpec(wandb=WandbSpec(mode="offline", project="tests"))
EVENTS = TrackingSpec(tensorboard=True)
BOTH = replace(OFFLINE, tensorboard=True)
CONFIG = {"experiment": "gsm8k_small", "scale": "tiny", "train": {"learning_rate": 0.5}}
SHORT = schedule(max_steps=2)


def warnings_in(caplog) -> list[str]:
    """What idlora warned of; what other packages log is theirs."""
    ours = [record for record in caplog.records if record.name.startswith("reproduction.")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def with_dropout(name: str):
    method = METHODS[name]
    return replace(method, arguments={**method.arguments, "lora_dropout": 0.3})


@pytest.fixture
def folder(tmp_path):
    """A run's folder as it is when the training starts."""
    folder = tmp_path / "small-words-s0-0123456789"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.mark.build
def test_a_followed_training_is_the_same_to_the_bit_and_its_trackers_know_every_step(
    base, tokenized, folder, tmp_path, capfd, caplog
):
    method = with_dropout("idlora")
    spec = schedule(max_steps=11, epochs=3, micro_batch_size=4, gradient_checkpointing=True)
    run(tmp_path / "alone", base, method, tokenized, spec)
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
        assert {name: known[name] for name in ("loss", "learning_rate", "grad_norm")} == {
            name: line[name] for name in ("loss", "learning_rate", "grad_norm")
        }
        assert known["tokens_per_second"] > 0
        assert 0.01 < known["peak_memory_gib"] < 100
        assert ("router_entropy" in known) == (line["step"] in (1, 10))
    assert history[1]["router_entropy"] == pytest.approx(1)  # routers start even
    assert 0 < history[10]["router_entropy"] < 1 - 1e-9

    events = tensorboard_history(folder / "tensorboard")
    assert events.keys() == history.keys()
    assert all(events[step] == pytest.approx(figures, rel=1e-6) for step, figures in history.items())


def test_a_run_of_the_tracker_is_named_grouped_and_configured_as_the_cell(base, tokenized, folder):
    run(folder, base, METHODS["idlora"], tokenized, SHORT, tracking=OFFLINE)
    (followed,) = folder.glob("wandb/offline-run-*")
    records = wandb_records(followed)
    (start, *_) = [message for kind, message in records if kind == "run"]
    assert (start.run_id, start.display_name, start.run_group, start.project) == (
        folder.name, folder.name, "gsm8k_small", "tests",
    )  # fmt: skip
    config = wandb_config(followed)
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert len(config["pivots"]) == 14
    up = config["pivots"]["model.layers.0.mlp.up_proj"]
    assert up["share"] == 2 * 4 / 64
    assert len(up["clusters"]) == 2
    assert sum(up["clusters"]) == 64
    assert [message.exit_code for kind, message in records if kind == "exit"] == [0]


@pytest.mark.parametrize("name", ["full", "lora", "hydralora", "moelora"])
def test_every_method_is_followed_and_those_with_routers_tell_of_them(name, base, tokenized, folder):
    run(folder, base, METHODS[name], tokenized, SHORT, tracking=EVENTS)
    history = tensorboard_history(folder / "tensorboard")
    assert list(history) == [1, 2]
    assert ("router_entropy" in history[1]) == (name in ("hydralora", "moelora"))
    assert 0 < history[1].get("router_entropy", 0.5) < 1
    assert not (folder / "wandb").exists()


def test_a_run_that_is_taken_up_again_goes_on_in_the_same_one_and_no_step_stands_twice(base, tokenized, folder):
    spec = schedule(max_steps=8, epochs=2, save_steps=2)

    def stop(step, total, loss):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, base, METHODS["lora"], tokenized, spec, on_step=stop, tracking=BOTH)
    run(folder, base, METHODS["lora"], tokenized, spec, tracking=BOTH)
    first, second = sorted(
        (path for path in folder.glob("wandb/offline-run-*")), key=lambda path: path.stat().st_ctime_ns
    )
    for followed, code, steps in ((first, 1, [1, 2, 3, 4, 5]), (second, 0, [5, 6, 7, 8])):
        records = wandb_records(followed)
        assert [message.exit_code for kind, message in records if kind == "exit"] == [code]
        assert {message.run_id for kind, message in records if kind == "run"} == {folder.name}
        assert list(wandb_history(followed)) == steps
    assert sorted(tensorboard_history(folder / "tensorboard")) == [1, 2, 3, 4, 5, 6, 7, 8]


def raising(*arguments, **settings):
    raise ConnectionError("the network\nis gone")


@pytest.mark.parametrize("moment", ["init", "log", "finish"])
def test_losing_a_tracker_at_any_moment_is_one_warning_and_the_other_goes_on(
    moment, base, tokenized, folder, tmp_path, monkeypatch, caplog
):
    if moment == "init":
        monkeypatch.setattr(wandb, "init", raising)
    else:
        monkeypatch.setattr(tracking.Wandb, moment, raising)
    run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=BOTH)
    assert warnings_in(caplog) == ["The run goes on without wandb (ConnectionError: the network)."]
    assert sorted(tensorboard_history(folder / "tensorboard")) == [1, 2]
    run(tmp_path / "alone", base, METHODS["lora"], tokenized, SHORT)
    assert furthest(saved_weights(folder), saved_weights(tmp_path / "alone")) == 0


def test_a_folder_that_cannot_be_written_loses_tensorboard_alone(base, tokenized, folder, caplog):
    (folder / "tensorboard").touch()
    run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=EVENTS)
    (warning,) = warnings_in(caplog)
    assert warning.startswith("The run goes on without tensorboard (FileExistsError: ")
    assert saved_weights(folder)


@pytest.mark.parametrize(("spec", "package"), [(OFFLINE, "wandb"), (EVENTS, "tensorboard")])
def test_a_tracker_that_is_not_installed_is_told_with_the_way_out(
    spec, package, base, tokenized, folder, monkeypatch, caplog
):
    importlib.import_module("torch.utils.tensorboard")
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=spec)
    (warning,) = warnings_in(caplog)
    assert warning.startswith(f"The run goes on without {package} (ModuleNotFoundError: ")
    assert warning.endswith(f"`pip install {package}` brings it.")


def test_online_without_an_account_asks_nobody_and_goes_on(base, tokenized, folder, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    online = TrackingSpec(wandb=WandbSpec(mode="online"))
    run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=online)
    (warning,) = warnings_in(caplog)
    assert "there is no API key: run `wandb login`" in warning
    assert not list(folder.glob("wandb/run-*"))


def test_nothing_is_followed_unless_asked_for(base, tokenized, folder):
    assert not TrackingSpec().wanted
    assert OFFLINE.wanted
    assert EVENTS.wanted
    run(folder, base, METHODS["lora"], tokenized, SHORT, tracking=TrackingSpec())
    assert not [path for path in folder.iterdir() if path.name in ("wandb", "tensorboard")]
    with pytest.raises(ValueError, match="tensorboard is 'yes': give true or false"):
        TrackingSpec(tensorboard="yes")


def test_two_processes_with_weights_in_parts_train_as_they_do_alone_and_the_first_one_tells(
    base, tokenized, tmp_path, repository
):
    pytest.importorskip("deepspeed")
    zero3 = str(repository / "configs" / "launch" / "zero3.yaml")
    (tmp_path / "task.json").write_text(json.dumps({"base": asdict(base), "rows": tokenized.rows, "deepspeed": zero3}))
    paths = [str(repository), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(HERE / "followed_in_parts.py"), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("alone", "followed"):
        assert [json.loads((tmp_path / name / f"rank-{rank}.json").read_text()) for rank in (0, 1)] == [True, True]
    assert furthest(saved_weights(tmp_path / "followed"), saved_weights(tmp_path / "alone")) == 0
    assert len(list((tmp_path / "followed" / "tensorboard").iterdir())) == 1
    history = tensorboard_history(tmp_path / "followed" / "tensorboard")
    assert list(history) == [1, 2]
    assert history[1]["router_entropy"] == pytest.approx(1)
