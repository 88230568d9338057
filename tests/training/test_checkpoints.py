"""Checkpoints: one that is incomplete, changed or foreign is skipped in favour of the previous one."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import METHODS, furthest, run, saved_weights, schedule
from test_adapters import flip

from reproduction.records import Run
from reproduction.training.checkpoints import last_whole_checkpoint, save_aside

SPEC = schedule(max_steps=6, save_steps=2, optimizer="adamw_torch", learning_rate=1e-2)


@pytest.fixture(scope="module")
def whole(base, tokenized, tmp_path_factory) -> Path:
    """Folder of a run with checkpoints of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, base, METHODS["lora"], tokenized, SPEC)
    assert {path.name for path in (folder / "checkpoints").glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda checkpoint: checkpoint.with_name("checksums-6.json").unlink(),
        lambda checkpoint: checkpoint.with_name("checksums-6.json").write_text('{"opt'),
        lambda checkpoint: (checkpoint / "adapter_model.safetensors").unlink(),
        lambda checkpoint: (checkpoint / "rng_state_1.pth").write_bytes(b"a stranger's"),
        lambda checkpoint: flip(checkpoint / "optimizer.pt"),
    ],
    ids=["not recorded", "half a record", "a file gone", "another file", "moments"],
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(damage, base, whole, tokenized, tmp_path, caplog):
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    damage(tmp_path / "checkpoints" / "checkpoint-6")
    (tmp_path / "checkpoints" / "checkpoint-6.bak").mkdir()  # a user's copy, not a checkpoint
    steps = []
    run(tmp_path, base, METHODS["lora"], tokenized, SPEC, on_step=lambda step, *_: steps.append(step))
    assert steps == [5, 6]
    assert "checkpoint-6 is damaged" in caplog.text
    assert furthest(saved_weights(tmp_path), saved_weights(whole)) == 0


def test_what_a_killed_attempt_left_is_no_part_of_the_next_checkpoint(tmp_path):
    left = tmp_path / ".aside" / "checkpoint-4"
    left.mkdir(parents=True)
    (left / "rng_state_1.pth").write_text("of a launch of two processes")

    def write(aside: Path) -> None:
        (aside / "checkpoint-4").mkdir(parents=True)
        (aside / "checkpoint-4" / "adapter").write_text("weights")

    save_aside(tmp_path, 4, write=write, first=True)
    found = last_whole_checkpoint(tmp_path)
    assert found == tmp_path / "checkpoint-4"
    assert [path.name for path in found.iterdir()] == ["adapter"]
    assert not left.parent.exists()


class Unpickled:
    """Object that creates a file when it is unpickled, as a foreign DeepSpeed checkpoint can run any code."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return self.trace.write_text, ("unpickled",)


def test_a_checkpoint_that_the_run_did_not_write_is_not_read(base, tokenized, tmp_path, monkeypatch):
    stranger = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    stranger.mkdir(parents=True)
    torch.save(Unpickled(tmp_path / "trace"), stranger / "optimizer.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as in DeepSpeed
    run(tmp_path / "run", base, METHODS["lora"], tokenized, schedule(max_steps=2))
    assert not (tmp_path / "trace").exists()
    torch.load(stranger / "optimizer.pt", weights_only=False)
    assert (tmp_path / "trace").exists()


def test_checkpoints_of_another_run_are_skipped(base, whole, tokenized, tmp_path):
    parts = {"scale": "tiny", "data": {}, "train": {}, "model": {"name": "small"}, "method": {"kind": "peft"}}
    Run(tmp_path).start(parts | {"seed": 1})
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    steps = []
    spec = replace(SPEC, max_steps=2)
    run(tmp_path, base, METHODS["lora"], tokenized, spec, on_step=lambda step, *_: steps.append(step))
    assert steps == [1, 2]
