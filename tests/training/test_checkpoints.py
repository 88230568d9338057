"""A checkpoint is what its own attempt wrote, and nothing of an earlier one."""

from pathlib import Path

from idlora.training.checkpoints import last_whole_checkpoint, save_aside


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
    assert sorted(path.name for path in found.iterdir()) == ["adapter", "whole.json"]
    assert not left.parent.exists()
