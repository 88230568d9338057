"""Files that are there whole or not at all, and scratch folders. Files that dead writers left there are removed.

    .<name>.<host>-<random>.idlora-tmp      beside the file that it becomes, locked by its writer
    <prefix><host>-<random>                 a scratch folder, there as long as <prefix><host>-<random>.idlora-tmp is,
    <prefix><host>-<random>.idlora-tmp      which is locked by the folder's maker

The kernel releases a lock when its process ends. Whoever gets the lock knows that no process still writes the file.
A shared file system may keep locks within each host, so a host removes only what it made. Where there are no locks, on
some file systems, files are written all the same, and what dead writers left stays.
"""

import contextlib
import fcntl
import fnmatch
import io
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
"""This host in the names of what it makes: short, and without characters that a pattern or a file system knows."""

MADE_HERE = f"*{HOST}-{'?' * 8}{ENDING}"


class NotWritten(OSError):
    """A file could not be written whole: `filename` and `strerror` are in the sentence."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}; put that right and run the same command again"


@contextlib.contextmanager
def written_whole(path: Path, place: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write, which is on the disk and takes the place of ``path`` when the block ends without an error.

    A reader sees the old file or the new one, also after a power cut; of two writers the last one wins. The folder is
    made where there is none. Meanwhile the file is in ``place``, a folder of the same file system, or beside ``path``:
    that folder is swept first.

    Raises `NotWritten` where the disk is full or the folder cannot be written; the old file then stays.
    """
    path = Path(path)
    place = place or path.parent
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    sweep(place)
    with _locked_file(place, f".{path.name}.", path) as (temporary, raw):
        try:
            with io.BufferedWriter(raw) as file:
                yield file
                file.flush()
                with _told(path):
                    os.fsync(file.fileno())
                    os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    with _told(path):
        sync_folder(path.parent)


@contextlib.contextmanager
def scratch_folder(place: Path | None = None, prefix: str = "idlora-") -> Iterator[Path]:
    """A new folder in ``place``, or where the system has its temporary files, for as long as the block lasts.

    ``place`` is swept first. Raises `NotWritten` where the folder cannot be made.
    """
    place = Path(place or tempfile.gettempdir())
    sweep(place)
    with _locked_file(place, prefix, place) as (lock, _):
        try:
            with _told(place):
                _guarded_by(lock).mkdir(mode=0o700)
            yield _guarded_by(lock)
        finally:
            with contextlib.suppress(OSError):
                _remove(lock)


def sweep(folder: Path, *, below: bool = False) -> None:
    """Remove what writers and makers of this host that died left in a folder, and ``below`` it in others too."""
    walk = os.walk(folder)
    for parent, _, names in walk if below else itertools.islice(walk, 1):
        for name in fnmatch.filter(names, MADE_HERE):
            _remove_if_left(Path(parent, name))


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _File(io.FileIO):
    """A new file. What fails when it is written is told of ``path``."""

    def __init__(self, own: Path, path: Path):
        self.path = path
        with _told(path):
            super().__init__(own, "x")

    def write(self, data: bytes) -> int:
        with _told(self.path):
            return super().write(data)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotWritten(error.errno, error.strerror or str(error), os.fspath(path)) from error


@contextlib.contextmanager
def _locked_file(place: Path, prefix: str, path: Path) -> Iterator[tuple[Path, _File]]:
    """A new file in ``place``, locked until the end: made anew where it was swept away before the lock."""
    while True:
        own = place / f"{prefix}{HOST}-{secrets.token_hex(4)}{ENDING}"
        with _File(own, path) as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file.fileno(), own):
                continue
            yield own, file
            return


def _remove_if_left(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone, another's to remove, or at work: then it is locked
        # For writing: NFS locks no other file. A FIFO is not waited for.
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    _remove(path)
        finally:
            os.close(descriptor)


def _guarded_by(lock: Path) -> Path:
    """The scratch folder that is there as long as this file is."""
    return lock.with_suffix("")


def _remove(path: Path) -> None:
    """Remove a temporary file, after the folder that it guards: a sweep that is killed meanwhile is gone on with."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(_guarded_by(path))
    path.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
