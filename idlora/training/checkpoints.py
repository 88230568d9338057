"""Checkpoints that are known to be whole.

The Trainer writes a checkpoint file by file and in place, so one that a kill cut short looks like any other. A whole
one carries a list of its files and their sizes, written last. Left out: a file damaged without a change of its size.
"""

import json
import logging
import os
from pathlib import Path

import torch.distributed
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)

WHOLE = "whole.json"


class MarkWhole(TrainerCallback):
    """Marks each checkpoint as whole once every process has written its part."""

    def on_save(self, args, state, control, **kwargs):
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_whole(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def mark_whole(checkpoint: Path) -> None:
    """Writes, at once or not at all, the list of the checkpoint's files with their sizes."""
    draft = checkpoint / (WHOLE + ".tmp")
    draft.write_text(json.dumps(_sizes(checkpoint)), encoding="utf-8")
    os.replace(draft, checkpoint / WHOLE)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file that the checkpoint's list names is there in its size."""
    try:
        listed = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return listed.items() <= _sizes(checkpoint).items()


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint of the most steps, or None; each torn one passed over is warned of."""
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    for step in sorted(steps, reverse=True):
        if is_whole(steps[step]):
            return steps[step]
        logger.warning("Checkpoint %s is torn and is passed over.", steps[step])
    return None


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and not path.name.startswith(WHOLE))
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in sorted(files)}
