"""Checkpoints that are known to be whole: written aside, renamed when complete, the last two kept.

    checkpoints/.aside/checkpoint-N    while every process writes its part; nothing reads it from there
    checkpoints/checkpoint-N           afterwards, with a list of its files and their sizes

A file that was cut short later, or is gone, is found by that list: the checkpoint is passed over with the name of the
file, and the one before it is used. Left out: a file damaged without a change of its size.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from idlora.training.spec import CHECKPOINTS_KEPT

logger = logging.getLogger(__name__)

WHOLE = "whole.json"
ASIDE = ".aside"


class CheckpointFailed(OSError):
    """A checkpoint could not be written."""


def save_aside(folder: Path, step: int, *, write: Callable[[Path], None], first: bool) -> None:
    """Write a checkpoint so that it is there whole or not at all, and drop all but the last ones.

    Every process of a launch calls it. `write(aside)` writes this process's part to `aside/checkpoint-<step>`.

    Args:
        folder: of the run's checkpoints.
        step: the step that it was taken after.
        first: whether this is the process that renames and prunes.

    Raises:
        CheckpointFailed: the disk is full or cannot be written; the checkpoints before are untouched.
    """
    aside, name = folder / ASIDE, f"{PREFIX_CHECKPOINT_DIR}-{step}"
    if first:
        drop_unfinished(folder)  # of an attempt that was killed
    _wait_for_all()
    with _disk_told(folder, name):
        write(aside)
    _wait_for_all()
    if first:
        with _disk_told(folder, name):
            mark_whole(aside / name)
            shutil.rmtree(folder / name, ignore_errors=True)  # a torn one that was passed over
            os.replace(aside / name, folder / name)
        drop_unfinished(folder)
        for old in sorted(_by_step(folder).items(), reverse=True)[CHECKPOINTS_KEPT:]:
            shutil.rmtree(old[1], ignore_errors=True)
    _wait_for_all()


@contextlib.contextmanager
def _disk_told(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:  # torch tells of a full disk by a RuntimeError
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        drop_unfinished(folder)
        raise CheckpointFailed(
            f"Checkpoint {folder / name} could not be written with {free / 1e9:.1f} GB free "
            f"({first_line(error)}): make room, or set train.save_steps=0; the same command goes on from the "
            "checkpoint before."
        ) from error


def drop_unfinished(folder: Path) -> None:
    """Remove what a checkpoint left that was not written to its end."""
    shutil.rmtree(folder / ASIDE, ignore_errors=True)


def mark_whole(checkpoint: Path) -> None:
    """Write the list of the checkpoint's files with their sizes."""
    (checkpoint / WHOLE).write_text(json.dumps(_sizes(checkpoint)), encoding="utf-8")


def torn_file(checkpoint: Path) -> str | None:
    """The first file that is not as the checkpoint's list has it, and how; None where all are."""
    try:
        listed = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{checkpoint / WHOLE} is missing or unreadable"
    there = _sizes(checkpoint)
    for name, size in listed.items():
        if there.get(name) != size:
            return f"{checkpoint / name} has {there.get(name, 'no')} bytes of {size}"
    return None


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint of the most steps, or None; of each torn one passed over, the file is told."""
    for _, checkpoint in sorted(_by_step(folder).items(), reverse=True):
        torn = torn_file(checkpoint)
        if torn is None:
            return checkpoint
        logger.error("The checkpoint %s is torn and is passed over: %s.", checkpoint.name, torn)
    return None


def _by_step(folder: Path) -> dict[int, Path]:
    return {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path.name != WHOLE)
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in sorted(files)}


def _wait_for_all() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def first_line(error: BaseException) -> str:
    """The first line of what an error says, headings left out, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return next((line for line in lines if not line.endswith(":")), lines[0])
