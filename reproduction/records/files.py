"""Small files written whole or not at all, and operating-system errors told in one sentence."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reproduction.system.atomic import written_whole


class RecordError(Exception):
    """A record cannot be read, written or trusted; the message is one sentence that names the file and the way out."""


@contextlib.contextmanager
def one_sentence(verb: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` on ``path`` into a `RecordError` that says what could not be done and why."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise RecordError(f"cannot {verb} {path}: {why}; put that right and run the same command again") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` whole or not at all; see `written_whole`.

    Raises `RecordError` where the disk is full or the folder cannot be written; the old file then stays.
    Leaves out: locking (two writers of one file: the last one wins, whole).
    """
    with one_sentence("write", path), written_whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; a `Path` is written as text.

    Raises `RecordError` where it is no JSON value.
    """
    try:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=os.fspath)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path} cannot hold this value as JSON: {error}") from error
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises `RecordError` where the file is missing, unreadable, or holds something else."""
    with one_sentence("read", path):
        data = Path(path).read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not JSON ({error}); delete its folder and run the cell again") from error
    if not isinstance(value, dict):
        raise RecordError(
            f"{path} holds a {type(value).__name__}, not an object; delete its folder and run the cell again"
        )
    return value
