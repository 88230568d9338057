"""Exclusive, timed work in a run's folder, with disk space reserved to record how it ended.

.lock     locked by the working process; its size is `RESERVE` meanwhile
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from reproduction.records import RecordError, Run, write_json
from reproduction.records.files import one_sentence
from reproduction.system.atomic import sweep

RESERVE = 2**16
"""Bytes that `release_reserve` frees; the record of how the work ended takes fewer."""

LOCK = ".lock"


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Work in a run's folder exclusively; waits for another process that does. Do not nest.

    The seconds inside are added to seconds.json, with the time when they began. Raises `RecordError` if the disk is
    full, unless another error ends the work first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(folder, below=True)
        lock.truncate(0)
        with one_sentence("write", folder / LOCK):
            if lock.write(os.urandom(RESERVE)) < RESERVE:  # random bytes cannot be compressed by the file system
                lock.truncate(0)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before, clock = Run(folder).seconds, time.monotonic()
        began = datetime.now(UTC).isoformat(timespec="seconds")

        def note_seconds() -> None:
            release_reserve(folder)
            own = round(time.monotonic() - clock, 1)
            sittings = [*before.get("sittings", []), [began, own]]
            total = round(before.get("seconds", 0.0) + own, 1)
            write_json(folder / "seconds.json", {"seconds": total, "sittings": sittings})

        try:
            yield
        except BaseException:
            with contextlib.suppress(RecordError):  # a full disk must not hide the first error
                note_seconds()
            raise
        note_seconds()


def release_reserve(folder: Path) -> None:
    """Free the space that the process at work in the folder reserved, so that a full disk takes a few small files."""
    with contextlib.suppress(OSError):
        os.truncate(folder / LOCK, 0)


def seconds_at_work(folder: Path) -> float | None:
    """Return the seconds that all commands have worked in a run's folder; None if none has."""
    return Run(folder).seconds.get("seconds")
