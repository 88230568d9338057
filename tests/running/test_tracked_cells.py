"""Experiment tracking, from command-line keys to the tracker's files."""

import json
from dataclasses import replace

import pytest

from reproduction.cells.from_config import compose_cell
from reproduction.running.train import train_cell
from reproduction.training import TrackingSpec, WandbSpec


def composed(tmp_path, *overrides):
    overrides = (f"results_dir={tmp_path}", *overrides)
    return compose_cell("gsm8k_llama3", "idlora", scale="tiny", seed=0, overrides=overrides)


def test_a_cell_is_followed_as_the_config_says_and_is_the_same_run(tmp_path):
    alone = composed(tmp_path)
    assert alone.tracking == TrackingSpec(wandb=WandbSpec(mode="disabled", project="idlora"))
    followed = composed(tmp_path, "wandb.mode=online", "wandb.entity=us", "tensorboard=true")
    assert followed.tracking == TrackingSpec(
        wandb=WandbSpec(mode="online", project="idlora", entity="us"), tensorboard=True
    )
    assert followed.run.folder == alone.run.folder
    assert replace(followed, tracking=alone.tracking) == alone


@pytest.mark.parametrize("override", ["wandb.mode=on", "+wandb.tags=x", "tensorboard=maybe"])
def test_keys_and_values_that_cannot_be_followed_are_named(override, tmp_path):
    key, value = override.removeprefix("+").split("=")
    with pytest.raises(ValueError, match=key) as refused:
        composed(tmp_path, override)
    assert value in str(refused.value) or key == "wandb.tags"


def test_a_cell_s_training_tells_the_tracker_its_own_config_json(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cell = composed(tmp_path, "tensorboard=true", "train.max_steps=2", "hparams=default")
    train_cell(cell)
    assert cell.run.done
    events = EventAccumulator(str(cell.run.folder / "tensorboard"))
    events.Reload()
    assert {event.step for event in events.Scalars("loss")} == {1, 2}
    (logged,) = events.Tensors("config/text_summary")
    (text,) = logged.tensor_proto.string_val
    config = json.loads(text.decode().removeprefix("```json\n").removesuffix("\n```"))
    assert len(config.pop("pivots")) == 28
    assert config == json.loads((cell.run.folder / "config.json").read_text())
