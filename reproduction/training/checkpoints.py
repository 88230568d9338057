"""Atomic, verified checkpoints: written to a temporary folder, renamed when complete, the last two kept.

    checkpoints/.aside/checkpoint-N    temporary folder into which every process writes its part
    checkpoints/checkpoint-N           the complete checkpoint
    checkpoints/checksums-N.json       {"run": digest of the requested run, "files": name → SHA-256}

A checkpoint that was changed, or not written by the run, is skipped in favour of the previous one: loading a foreign
one can execute code (DeepSpeed unpickles). The checksums do not protect against someone who rewrites them too.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from reproduction.records import RecordError, Run, read_json, run_digest, write_json
from reproduction.records.files import checksums, difference
from reproduction.training import launching
from reproduction.training.spec import CHECKPOINTS_KEPT

logger = logging.getLogger(__name__)

ASIDE = ".aside"


class CheckpointFailed(OSError):
    """A checkpoint could not be written."""


def save_aside(folder: Path, step: int, *, write: Callable[[Path], None], first: bool) -> None:
    """Write a checkpoint atomically and delete all but the last ones.

    Every process of a launch calls it. `write(aside)` writes this process's part to `aside/checkpoint-<step>`; the
    `first` process renames and prunes.

    Raises:
        CheckpointFailed: the disk is full or cannot be written; earlier checkpoints are unchanged.
    """
    aside, checkpoint = folder / ASIDE, folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    if first:
        drop_unfinished(folder)  # left by a killed attempt
    _wait_for_all()
    with _disk_errors(checkpoint):
        write(aside)
    _wait_for_all()
    if first:
        with _disk_errors(checkpoint):
            files = checksums(aside / checkpoint.name)
            write_json(_record_of(checkpoint), {"run": _run_digest(folder), "files": files})
            shutil.rmtree(checkpoint, ignore_errors=True)  # a damaged checkpoint that was skipped
            os.replace(aside / checkpoint.name, checkpoint)
        drop_unfinished(folder)
        for _, old in _newest_first(folder)[CHECKPOINTS_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
            _record_of(old).unlink(missing_ok=True)
    _wait_for_all()


@contextlib.contextmanager
def _disk_errors(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    # torch reports a full disk as a RuntimeError
    except (OSError, RuntimeError, SafetensorError, RecordError) as error:
        folder = checkpoint.parent
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        drop_unfinished(folder)
        raise CheckpointFailed(
            f"Checkpoint {checkpoint} could not be written with {free / 1e9:.1f} GB free "
            f"({first_line(error)}): make room, or set train.save_steps=0; the same command goes on from the "
            "checkpoint before."
        ) from error


def drop_unfinished(folder: Path) -> None:
    """Remove the remains of an incomplete checkpoint."""
    shutil.rmtree(folder / ASIDE, ignore_errors=True)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the last intact checkpoint, or None; log the damage of each skipped one.

    In a joined launch the first process checks and sends the result to the others.
    """
    step = 2**62  # larger than in any run
    if launching.rank() == 0:
        step = 0
        for at, checkpoint in _newest_first(folder):
            wrong = _damage(checkpoint)
            if wrong is None:
                step = at
                break
            logger.error("The checkpoint %s is damaged and is skipped: %s.", checkpoint.name, wrong)
    step = launching.min_over_ranks(step)
    return folder / f"{PREFIX_CHECKPOINT_DIR}-{step}" if step else None


def _damage(checkpoint: Path) -> str | None:
    """Describe the damage of a checkpoint; None if it is intact."""
    record = _record_of(checkpoint)
    if not record.exists():
        return f"{record} is gone, or this run did not write it"
    try:
        found = read_json(record)
        if found.get("run") != _run_digest(checkpoint.parent):
            return f"{record} is of another run"
        return difference(checkpoint, found.get("files") or {})
    except RecordError:
        return f"{record} or one of its files cannot be read"


def _run_digest(folder: Path) -> str | None:
    """Return the config digest of the run with this checkpoints folder; None if it is not a run of a table."""
    try:
        return run_digest(Run(folder.parent).config)
    except RecordError:
        return None


def _record_of(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name.replace(PREFIX_CHECKPOINT_DIR, "checksums") + ".json")


def _newest_first(folder: Path) -> list[tuple[int, Path]]:
    names = (re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name) for path in folder.glob("*"))
    return sorted(((int(name[1]), folder / name[0]) for name in names if name), reverse=True)


def _wait_for_all() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without headings, or its type for an empty message."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return next((line for line in lines if not line.endswith(":")), lines[0])
