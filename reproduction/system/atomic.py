"""Files that are there whole or not at all, and scratch folders. What dead writers left there is removed.

    .<name>.<host>-<random>.idlora-tmp      beside the file that it becomes, locked by its writer
    <prefix><host>-<random>                 a scratch folder, there as long as <prefix><host>-<random>.idlora-tmp is,
    <prefix><host>-<random>.idlora-tmp      which is locked by the folder's maker

The kernel releases a lock when its process ends: whoever gets the lock knows that the writer is dead. A shared file
system may keep locks within each host, so a host removes only what it made. Where a file system has no locks, files are
written all the same, and what dead writers left stays.
"""

import contextlib
import fcntl
import fnmatch
import itertools
import os
import platform
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

ENDING = ".idlora-tmp"
HOST = f"{zlib.crc32(platform.node().encode()):08x}"
"""This host in file names: short, and without characters that a pattern or a file system knows."""


class NotWritten(OSError):
    """A file could not be written whole: `filename` and `strerror` are in the message."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}; put that right and run the same command again"


@contextlib.contextmanager
def written_whole(path: Path, place: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write, which is on the disk and replaces ``path`` when the block ends without an error.

    A reader sees the old file or the new one, also after a power cut; of two writers the last one wins. The folder is
    made where there is none. Meanwhile the file is in ``place``, a folder of the same file system, or beside ``path``:
    that folder is swept first.

    Raises `NotWritten` where the disk is full or the folder cannot be written; the old file then stays.
    """
    path = Path(path)
    place = place or path.parent
    with _as_not_written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(place)
        temporary, file = _locked_file(place, f".{path.name}.")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # What else the block does fails with a file name of its own.
        if isinstance(error, OSError) and str(error.filename) in ("None", str(temporary)):
            raise _not_written(error, path) from error
        raise
    with _as_not_written(path):
        sync_folder(path.parent)


@contextlib.contextmanager
def scratch_folder(place: Path | None = None, prefix: str = "idlora-") -> Iterator[Path]:
    """A new folder in ``place``, or where the system has its temporary files, for as long as the block lasts.

    ``place`` is swept first. Raises `NotWritten` where the folder cannot be made.
    """
    place = Path(place or tempfile.gettempdir())
    sweep(place)
    with _as_not_written(place):
        lock, file = _locked_file(place, prefix)
    with file:
        try:
            folder = lock.with_suffix("")
            with _as_not_written(place):
                folder.mkdir(mode=0o700)
            yield folder
        finally:
            with contextlib.suppress(OSError):
                _remove(lock)


def sweep(folder: Path, *, below: bool = False) -> None:
    """Remove what writers and makers of this host that died left in a folder, and ``below`` it in others too."""
    walk = os.walk(folder)
    for parent, _, names in walk if below else itertools.islice(walk, 1):
        for name in fnmatch.filter(names, f"*{HOST}-{'?' * 8}{ENDING}"):
            with contextlib.suppress(OSError):  # gone, another's to remove, or in use: then it is locked
                _remove_if_left(Path(parent, name))


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(error: OSError, path: Path) -> NotWritten:
    return NotWritten(error.errno, error.strerror or str(error), os.fspath(path))


@contextlib.contextmanager
def _as_not_written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _not_written(error, path) from error


def _locked_file(place: Path, prefix: str) -> tuple[Path, BinaryIO]:
    """A new, locked file in ``place``: made anew where it was swept away before the lock."""
    while True:
        path = place / f"{prefix}{HOST}-{secrets.token_hex(4)}{ENDING}"
        file = path.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file.fileno(), path):
            return path, file
        file.close()


def _remove_if_left(path: Path) -> None:
    # For writing: NFS locks no other file. A FIFO is not waited for.
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                _remove(path)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a temporary file, after the scratch folder that it guards: a killed sweep is continued by the next."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path.with_suffix(""))
    path.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
