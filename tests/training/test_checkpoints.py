"""A checkpoint is what its own attempt wrote, and nothing of an earlier one."""

import json
import shutil
from pathlib import Path

import torch
from cells import METHODS, run, schedule

from reproduction.records import Run
from reproduction.training.checkpoints import last_whole_checkpoint, save_aside


def test_what_a_killed_attempt_left_is_no_part_of_the_next_checkpoint(tmp_path: Path) -> None:
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
    """What says that it was unpickled, as a stranger's file in a DeepSpeed checkpoint could do anything else."""

    def __init__(self, told: Path):
        self.told = told

    def __reduce__(self):
        return self.told.write_text, ("unpickled",)


def test_a_checkpoint_that_the_run_did_not_write_is_not_read(base, tokenized, tmp_path, caplog, monkeypatch):
    """With or without a list of its files, such as the one that earlier releases kept in the folder itself."""
    stranger = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    stranger.mkdir(parents=True)
    torch.save(Unpickled(tmp_path / "told"), stranger / "optimizer.pt")
    (stranger / "whole.json").write_text(json.dumps({"optimizer.pt": (stranger / "optimizer.pt").stat().st_size}))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as DeepSpeed reads
    run(tmp_path / "run", base, METHODS["lora"], tokenized, schedule(max_steps=2))
    assert not (tmp_path / "told").exists()
    assert "checksums-2.json is gone, or this run did not write it" in caplog.text
    torch.load(stranger / "optimizer.pt", weights_only=False)
    assert (tmp_path / "told").exists()


def test_checkpoints_of_another_run_are_passed_over(base, tokenized, tmp_path, caplog):
    parts = {"scale": "tiny", "data": {}, "train": {}, "model": {"name": "small"}, "method": {"kind": "peft"}}
    for seed in (0, 1):
        Run(tmp_path / str(seed)).start(parts | {"seed": seed})
    run(tmp_path / "1", base, METHODS["lora"], tokenized, schedule(max_steps=2, save_steps=1, seed=1))
    shutil.copytree(tmp_path / "1" / "checkpoints", tmp_path / "0" / "checkpoints")
    steps = []
    spec = schedule(max_steps=2, save_steps=1, seed=0)
    run(tmp_path / "0", base, METHODS["lora"], tokenized, spec, on_step=lambda step, *_: steps.append(step))
    assert steps == [1, 2]
    assert "checksums-2.json is of another run" in caplog.text
