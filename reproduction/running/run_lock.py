"""Exclusive, timed work in a run's folder, with disk space reserved to record how it ended.

.lock     locked by who is at work; meanwhile as large as `RESERVE`
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
"""Bytes that `release_reserve` gives back to the file system: more than the record of an end takes."""

LOCK = ".lock"


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Work in a run's folder alone; waits for another process that does. Not to be nested.

    The seconds spent inside are added to seconds.json, and this sitting to its sittings. Raises `RecordError` where the
    disk is full, unless something else ends the work first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(folder, below=True)
        lock.truncate(0)
        with one_sentence("write", folder / LOCK):
            if lock.write(os.urandom(RESERVE)) < RESERVE:  # random: no file system stores it in fewer bytes
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
            with contextlib.suppress(RecordError):  # a full disk must not hide what went wrong first
                note_seconds()
            raise
        note_seconds()


def release_reserve(folder: Path) -> None:
    """Free the space that the process at work in the folder reserved: a full disk then takes a few small files."""
    with contextlib.suppress(OSError):
        os.truncate(folder / LOCK, 0)


def seconds_at_work(folder: Path) -> float | None:
    """Seconds that any command was at work in a run's folder; None where none was."""
    return Run(folder).seconds.get("seconds")
