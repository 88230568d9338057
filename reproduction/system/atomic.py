"""Atomic file writes and scratch folders, with removal of leftovers of killed processes.

    .<name>.<host>-<random>.idlora-tmp      beside the file that it becomes, locked by its writer
    <prefix><host>-<random>                 a scratch folder, which exists as long as
    <prefix><host>-<random>.idlora-tmp      its guard, locked by the process that made the folder

The kernel releases a lock when its process ends, so a process that gets the lock knows that the writer is dead. Locks
on a shared file system may be local to a host, so a host removes only its own files. On a file system without locks
files are written too, but leftovers stay.
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
"""Name of this host in file names: short, without special characters of patterns or file systems."""


class NotWritten(OSError):
    """A file could not be written completely; the message has `filename` and `strerror`."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}; put that right and run the same command again"


@contextlib.contextmanager
def written_whole(path: Path, place: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a file to write; it replaces ``path``, fsynced, when the block ends without an error.

    A reader sees the old file or the new one, also after a power cut; the last of two writers wins. A missing folder is
    created. The temporary file is in ``place``, a folder of the same file system, or beside ``path``; that folder is
    swept first.

    Raises `NotWritten` if the disk is full or the folder cannot be written; the old file then stays.
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
        # Other failing operations of the block have another file name.
        if isinstance(error, OSError) and str(error.filename) in ("None", str(temporary)):
            raise _not_written(error, path) from error
        raise
    with _as_not_written(path):
        sync_folder(path.parent)


@contextlib.contextmanager
def scratch_folder(place: Path | None = None, prefix: str = "idlora-") -> Iterator[Path]:
    """Yield a new folder in ``place``, by default the system's temporary folder, and remove it after the block.

    ``place`` is swept first. Raises `NotWritten` if the folder cannot be created.
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
    """Remove leftovers of this host's dead processes from a folder, with ``below`` from its subfolders too."""
    walk = os.walk(folder)
    for parent, _, names in walk if below else itertools.islice(walk, 1):
        for name in fnmatch.filter(names, f"*{HOST}-{'?' * 8}{ENDING}"):
            with contextlib.suppress(OSError):  # removed meanwhile, not ours to remove, or locked because in use
                _remove_if_left(Path(parent, name))


def sync_folder(folder: Path) -> None:
    """Fsync ``folder``, which makes a rename or a new name in it durable."""
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
    """Create a locked file in ``place``; try again if another process sweeps it before it is locked."""
    while True:
        path = place / f"{prefix}{HOST}-{secrets.token_hex(4)}{ENDING}"
        file = path.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file.fileno(), path):
            return path, file
        file.close()


def _remove_if_left(path: Path) -> None:
    # O_RDWR because NFS locks only files open for writing; O_NONBLOCK so that a FIFO does not block.
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                _remove(path)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a temporary file after the scratch folder that it guards: the next sweep continues a killed one."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path.with_suffix(""))
    path.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
