"""Exclusive, timed work in a run's folder, with disk space reserved to record the end.

.lock     locked by who is at work; meanwhile as large as `ROOM`
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

ROOM = 2**16
"""Bytes that `give_room` gives back to the file system: more than how a run ended takes."""

LOCK = ".lock"


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """One process at a time works in a run's folder, whichever command it belongs to; another waits here for its end.

    The seconds spent inside are added to the folder's own, and this sitting to its sittings. Not to be nested: a lock
    is not shared with itself. Raises `RecordError` where the disk is full, unless something else ends the work first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(folder, below=True)
        lock.truncate(0)
        with one_sentence("write", folder / LOCK):
            if lock.write(os.urandom(ROOM)) < ROOM:  # nothing that a file system stores in fewer bytes
                lock.truncate(0)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before, clock = Run(folder).seconds, time.monotonic()
        began = datetime.now(UTC).isoformat(timespec="seconds")

        def note_seconds() -> None:
            give_room(folder)
            own = round(time.monotonic() - clock, 1)
            every = {
                "seconds": round(before.get("seconds", 0.0) + own, 1),
                "sittings": [*before.get("sittings", []), [began, own]],
            }
            write_json(folder / "seconds.json", every)

        try:
            yield
        except BaseException:
            with contextlib.suppress(RecordError):  # a full disk must not hide what went wrong first
                note_seconds()
            raise
        note_seconds()


def give_room(folder: Path) -> None:
    """Give back the room that who is at work in the folder keeps: a full disk then takes a few small files."""
    with contextlib.suppress(OSError):
        os.truncate(folder / LOCK, 0)


def seconds_at_work(folder: Path) -> float | None:
    """Seconds that any command was at work in a run's folder; None where none was."""
    return Run(folder).seconds.get("seconds")
