"""Files that are there whole or not at all, and scratch folders; what a writer that died left is removed by the next.

    .<name>.<process id>.idlora-tmp     beside the file that it becomes, locked by its writer
    <prefix><8 random characters>       a scratch folder, locked by its maker

The kernel lets go of a lock when its process ends, on this machine or, on a file system that is shared, on another:
who gets the lock of a temporary file knows that nobody is at work on it. A file system that knows no locks keeps what
was left, and files are written there all the same.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where the methods are installed without the rest
    fcntl = None

ENDING = ".idlora-tmp"
RANDOM = 8
"""Characters that `tempfile.mkdtemp` adds to a prefix."""

SCRATCH = "idlora-tmp-"
"""Prefix of a scratch folder where the system has its temporary files, among those of other programs."""


class NotWritten(OSError):
    """A file could not be written whole: `filename` and `strerror` are in the sentence."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}; put that right and run the same command again"


@contextlib.contextmanager
def written_whole(path: Path, place: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write, which is on the disk and takes the place of ``path`` when the block ends without an error.

    A reader sees the old file or the new one, also after a power cut; of two writers the last one wins. The folder is
    made where there is none. Meanwhile the file is in ``place``, a folder of the same file system, or beside ``path``:
    what other writers left there that died is removed.

    Raises `NotWritten` where the disk is full or the folder cannot be written; the old file then stays.
    """
    path = Path(path)
    place = place or path.parent
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in place.glob(f".*{ENDING}"):
            _remove_if_left(left, Path.unlink)
        temporary = place / f".{path.name}.{os.getpid()}{ENDING}"
        with _held(lambda: temporary, os.O_CREAT | os.O_RDWR) as (descriptor, _):
            try:
                os.ftruncate(descriptor, 0)
                with open(descriptor, "wb", closefd=False) as file:
                    yield file
                    file.flush()
                    os.fsync(descriptor)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise NotWritten(error.errno, error.strerror or str(error), os.fspath(path)) from error


@contextlib.contextmanager
def scratch_folder(place: Path | None = None, prefix: str = SCRATCH) -> Iterator[Path]:
    """A new folder in ``place``, or where the system has its temporary files, for as long as the block lasts.

    What others left there that had the same prefix and died is removed.
    """
    place = Path(place or tempfile.gettempdir())
    for left in place.glob(prefix + "?" * RANDOM):
        _remove_if_left(left, shutil.rmtree)
    with _held(lambda: Path(tempfile.mkdtemp(prefix=prefix, dir=place)), os.O_RDONLY) as (_, folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _held(make: Callable[[], Path], flags: int) -> Iterator[tuple[int, Path]]:
    """The descriptor and path of a new file or folder, locked: made anew where it was swept away before the lock."""
    while True:
        path = make()
        try:
            descriptor = os.open(path, flags, 0o666)
        except FileNotFoundError:
            if flags & os.O_CREAT:
                raise
            continue
        try:
            with contextlib.suppress(OSError, AttributeError):  # a system or a file system that knows no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(descriptor, path):
                continue
            yield descriptor, path
            return
        finally:
            os.close(descriptor)


def _remove_if_left(path: Path, remove: Callable[[Path], None]) -> None:
    with contextlib.suppress(OSError, AttributeError):  # gone, another's to remove, or at work: then it is locked
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                remove(path)
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
