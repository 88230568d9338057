"""Atomic writing of small files, checksums, and operating-system errors as one sentence."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reproduction.system.atomic import written_whole


class RecordError(Exception):
    """A record cannot be read, written or trusted; the message is one sentence that names the file and the remedy."""


@contextlib.contextmanager
def one_sentence(verb: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` on ``path`` into a `RecordError` that names the failed action (``verb``) and the reason."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise RecordError(f"cannot {verb} {path}: {why}; put that right and run the same command again") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically. Raises `RecordError`."""
    with one_sentence("write", path), written_whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; a `Path` is written as text.

    Raises `RecordError`, also if ``value`` is not a JSON value.
    """
    try:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=os.fspath)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path} cannot hold this value as JSON: {error}") from error
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises `RecordError` if the file is missing, unreadable, or not a JSON object."""
    with one_sentence("read", path):
        data = Path(path).read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not JSON ({error}); delete its folder and run the cell again") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise RecordError(f"{path} holds a {kind}, not an object; delete its folder and run the cell again")
    return value


def checksum(path: Path) -> str:
    """Compute the SHA-256 of a file. Raises `RecordError`."""
    with one_sentence("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Return relative path (with /) → SHA-256 of every file in a folder, sorted; empty for a missing folder.

    Names that begin with a dot are skipped: file managers and network file systems create them. Raises `RecordError`.
    """
    folder = Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(names, threads.map(checksum, (folder / name for name in names)), strict=True))


def difference(folder: Path, recorded: Mapping[str, str]) -> str | None:
    """Describe the first file in a folder that differs from the recorded `checksums`; None if all agree.

    Raises `RecordError` if a file cannot be read.
    """
    found = checksums(folder)
    for name in sorted(recorded.keys() | found.keys()):
        if found.get(name) != recorded.get(name):
            how = "is gone" if name not in found else "was added" if name not in recorded else "has changed"
            return f"{Path(folder) / name} {how}"
    return None
