"""A run's folder keeps when each sitting in it began and how long it was."""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from idlora.pipeline.work import at_work, seconds_at_work
from idlora.records import Run, write_json


def test_every_sitting_is_kept_beside_the_sum_of_all_one_that_ended_in_an_error_too(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert seconds_at_work(tmp_path) is None
    write_json(tmp_path / "seconds.json", {"seconds": 60.0})  # of before sittings were kept
    before = datetime.now(UTC) - timedelta(seconds=1)
    with at_work(tmp_path):
        time.sleep(0.3)
    with contextlib.suppress(KeyboardInterrupt), at_work(tmp_path):
        time.sleep(0.1)
        raise KeyboardInterrupt
    (first, second), total = run.seconds["sittings"], seconds_at_work(tmp_path)
    assert 0.3 <= first[1] < 30 > second[1] >= 0.1
    assert total == pytest.approx(60 + first[1] + second[1])
    assert before <= datetime.fromisoformat(first[0]) <= datetime.fromisoformat(second[0]) <= datetime.now(UTC)
