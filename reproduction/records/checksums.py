"""SHA-256 of a folder's files: recorded once they are whole, and held against the record before they are used."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reproduction.records.files import one_sentence


def checksums(folder: Path) -> dict[str, str]:
    """Path below the folder (with /) → SHA-256 of every file in it, sorted; none where it is not there.

    Several files are read at a time. A link stands for the file that it leads to. Left out: names that begin with a
    dot, which file managers and network file systems put anywhere. Raises `RecordError`.
    """
    folder = Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # hashing lets other threads go on
        return dict(zip(names, threads.map(checksum, (folder / name for name in names)), strict=True))


def difference(folder: Path, recorded: Mapping[str, str]) -> str | None:
    """The first file below a folder that is not as `checksums` recorded it, and how; None where all are.

    Raises `RecordError` where a file cannot be read.
    """
    found = checksums(folder)
    for name in sorted(recorded.keys() | found.keys()):
        if found.get(name) != recorded.get(name):
            how = "is gone" if name not in found else "was added" if name not in recorded else "has changed"
            return f"{Path(folder) / name} {how}"
    return None


def checksum(path: Path) -> str:
    """SHA-256 of a file. Raises `RecordError`."""
    with one_sentence("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
