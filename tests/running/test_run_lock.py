"""A run's folder records start and length of each session, and reserves space to record how it ended."""

import contextlib
import dataclasses
import errno
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reproduction.cells.cell import Cell
from reproduction.records import RecordError, Run, write_json
from reproduction.running.run_lock import RESERVE, at_work, seconds_at_work
from reproduction.running.train import train_cell
from reproduction.system.atomic import ENDING, HOST


def test_every_sitting_is_kept_beside_the_sum_of_all_one_that_ended_in_an_error_too(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert seconds_at_work(tmp_path) is None
    write_json(tmp_path / "seconds.json", {"seconds": 60.0})  # of before sittings were kept
    before = datetime.now(UTC) - timedelta(seconds=1)
    left = tmp_path / "eval" / f".DONE.{HOST}-01234567{ENDING}"  # of a writer that died
    left.parent.mkdir()
    left.touch()
    with at_work(tmp_path):
        assert not left.exists()
        time.sleep(0.3)
    with contextlib.suppress(KeyboardInterrupt), at_work(tmp_path):
        time.sleep(0.1)
        raise KeyboardInterrupt
    (first, second), total = run.seconds["sittings"], seconds_at_work(tmp_path)
    assert 0.3 <= first[1] < 30 > second[1] >= 0.1
    assert total == pytest.approx(60 + first[1] + second[1])
    assert before <= datetime.fromisoformat(first[0]) <= datetime.fromisoformat(second[0]) <= datetime.now(UTC)


def test_a_disk_that_fills_while_a_cell_trains_is_told_with_the_file_and_the_status_says_failed(
    tiny: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = dataclasses.replace(tiny, results_dir=tmp_path)
    lock, sync = cell.run.folder / ".lock", os.fsync

    def full_but_for_what_is_kept(descriptor: int) -> None:
        if lock.stat().st_size:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    def train(cell: Cell, progress: object) -> dict:
        assert lock.stat().st_size == RESERVE
        monkeypatch.setattr(os, "fsync", full_but_for_what_is_kept)
        write_json(cell.run.folder / "file", {})
        raise AssertionError("the disk is full")

    monkeypatch.setattr("reproduction.running.train.train_here", train)
    with pytest.raises(RecordError, match=r"cannot write \S*/file: No space left on device"):
        train_cell(cell)
    assert (cell.run.state, lock.stat().st_size) == ("failed", 0)
    assert cell.run.status["reason"].startswith("RecordError: cannot write ")
    assert len(cell.run.seconds["sittings"]) == 1


def test_what_ended_the_work_is_told_although_nothing_more_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(ValueError, match="the work itself"), at_work(tmp_path):
        raise ValueError("the work itself")
    with pytest.raises(RecordError, match=r"cannot write \S*seconds.json: Read-only file system"), at_work(tmp_path):
        pass
