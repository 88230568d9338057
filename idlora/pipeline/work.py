"""Being at work in a run's folder: alone there, and on the clock."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from idlora.records import read_json, write_json

SECONDS = "seconds.json"
"""In a run's folder: how long training and evaluating it were at work, all attempts together."""


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """One process at a time works in a run's folder, whichever command it belongs to; another waits here for its end.

    The seconds spent inside are added to the folder's own. Not to be nested: a lock is not shared with itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before, began = seconds_at_work(folder) or 0.0, time.monotonic()
        try:
            yield
        finally:
            write_json(folder / SECONDS, {"seconds": round(before + time.monotonic() - began, 1)})


def seconds_at_work(folder: Path) -> float | None:
    """Seconds that any command was at work in a run's folder; None where none was."""
    path = folder / SECONDS
    return read_json(path)["seconds"] if path.is_file() else None
