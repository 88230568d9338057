"""Tracking from the command line's keys to the tracker's files."""

import json
from dataclasses import replace

import pytest

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.running.train import train_cell
from reproduction.training import TrackingSpec, WandbSpec


def composed(tmp_path, *overrides, scale="tiny"):
    overrides = (f"results_dir={tmp_path}", *overrides)
    return compose_cell("gsm8k_llama3", "idlora", scale=scale, seed=0, overrides=overrides)


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_a_cell_is_followed_as_the_config_says_and_is_the_same_run(scale, tmp_path):
    alone = composed(tmp_path, scale=scale)
    assert alone.tracking == TrackingSpec(wandb=WandbSpec(mode="disabled", project="idlora"))
    assert not alone.tracking.wanted
    followed = composed(tmp_path, "wandb.mode=online", "wandb.entity=us", "tensorboard=true", scale=scale)
    assert followed.tracking == TrackingSpec(
        wandb=WandbSpec(mode="online", project="idlora", entity="us"), tensorboard=True
    )
    assert followed.run.folder == alone.run.folder
    assert replace(followed, tracking=alone.tracking) == alone


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("wandb.mode=on", r"wandb\.mode: .*'disabled', 'online' or 'offline', got 'on'"),
        ("+wandb.tags=x", r"wandb\.tags is not a key of wandb; its keys are mode, project, entity"),
        ("tensorboard=maybe", "tensorboard is 'maybe': give true or false"),
    ],
)
def test_keys_and_values_that_cannot_be_followed_are_named(override, sentence, tmp_path):
    with pytest.raises((ConfigError, ValueError), match=sentence):
        composed(tmp_path, override)


def test_a_cell_s_training_tells_the_tracker_its_own_config_json(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cell = composed(tmp_path, "tensorboard=true", "train.max_steps=2", "hparams=default")
    train_cell(cell)
    assert cell.run.done
    events = EventAccumulator(str(cell.run.folder / "tensorboard"))
    events.Reload()
    assert {event.step for event in events.Scalars("loss")} == {1, 2}
    (told,) = events.Tensors("config/text_summary")
    (text,) = told.tensor_proto.string_val
    config = json.loads(text.decode().removeprefix("```json\n").removesuffix("\n```"))
    assert len(config.pop("pivots")) == 28
    assert config == json.loads((cell.run.folder / "config.json").read_text())
