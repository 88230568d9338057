"""Being at work in a run's folder: alone there, and on the clock."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from idlora.records import Run, write_json


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """One process at a time works in a run's folder, whichever command it belongs to; another waits here for its end.

    The seconds spent inside are added to the folder's own, and this sitting to its sittings. Not to be nested: a lock
    is not shared with itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before, clock = Run(folder).seconds, time.monotonic()
        began = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            yield
        finally:
            own = round(time.monotonic() - clock, 1)
            every = {
                "seconds": round(before.get("seconds", 0.0) + own, 1),
                "sittings": [*before.get("sittings", []), [began, own]],
            }
            write_json(folder / "seconds.json", every)


def seconds_at_work(folder: Path) -> float | None:
    """Seconds that any command was at work in a run's folder; None where none was."""
    return Run(folder).seconds.get("seconds")
