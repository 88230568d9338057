"""Parallel jobs: each ends independently, and an interrupt ends all of them cleanly."""

import os
import signal
import subprocess
import sys
import time

import pool_work
import pytest
from forks import all_ended, at_work_in

from reproduction.running.pool import run_jobs
from reproduction.running.progress import NullProgress


@pytest.fixture(autouse=True)
def bounded():
    """Fail the test if the pool hangs."""

    def late(*_):
        raise TimeoutError("the pool still waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Recorded(NullProgress):
    """Records all calls."""

    def __init__(self):
        self.cells, self.steps = [], []

    def cell(self, name, *, slot=0):
        self.cells.append((name, slot))

    def step(self, phase, done, total, *, note="", slot=0):
        self.steps.append((phase, done, total, note))


def run(jobs, ended, *, workers, progress=None, **more):
    names = [" ".join(map(str, job)) for job in jobs]
    progress = progress or NullProgress()
    run_jobs(pool_work.work, jobs, workers=workers, threads=1, names=names, progress=progress, ended=ended, **more)


def test_a_job_that_fails_or_whose_process_dies_is_reported_and_the_others_go_on():
    jobs = [("add", 1, 2), ("fail", "no such rank"), ("who",), ("die",), ("add", 3, 4), ("who",), ("start",)]
    ends, progress = {}, Recorded()
    run(jobs, lambda end: ends.setdefault(end.job, end), workers=2, progress=progress)
    assert sorted(ends) == list(range(len(jobs)))
    assert (ends[0].value, ends[4].value) == (3, 7)
    assert ends[1].error == "ValueError: no such rank"
    assert "killed by SIGKILL" in ends[3].error
    assert [ends[job].error for job in (0, 2, 4, 5, 6)] == [None] * 5
    assert "Bad file descriptor" in ends[6].value, "what a job starts has no hold of the pipe"
    assert {ends[job].value[1] for job in (2, 5)} == {os.environ["OMP_NUM_THREADS"]}
    assert {name for name, _ in progress.cells} == {" ".join(map(str, job)) for job in jobs}
    assert {slot for _, slot in progress.cells} == {0, 1}
    assert ("adding", 1, 2, "half") in progress.steps
    assert os.getpid() not in {ends[job].value[0] for job in (2, 5)}


def test_what_follows_from_a_job_is_done_next_by_the_same_process():
    ends, progress = [], Recorded()
    jobs = [("who",), ("add", 1, 1), ("add", 5, 5), ("who",)]

    def more(end):
        return [(("add", end.value, 10), "ten more")] if end.value == 2 else []

    run(jobs, ends.append, workers=1, progress=progress, more=more)
    assert [end.job for end in ends] == [0, 1, 4, 2, 3]
    assert [end.value for end in ends][1:4] == [2, 12, 10]
    assert ends[0].value == ends[-1].value
    assert [name for name, _ in progress.cells] == ["who", "add 1 1", "ten more", "add 5 5", "who"]


def test_an_interrupt_reaches_the_jobs_at_work_and_waits_for_them(tmp_path):
    place = tmp_path / "state"

    def stop(end):
        while not place.exists():
            pass
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([("wait", place), ("who",), ("add", 1, 2)], stop, workers=2)
    assert place.read_text() == "interrupted"


def test_workers_end_with_a_command_that_is_killed_whatever_they_are_at(tmp_path):
    places = [tmp_path / "first", tmp_path / "second"]
    command = [sys.executable, pool_work.__file__, *map(str, places)]
    with subprocess.Popen(command, cwd=tmp_path) as command:
        while not all(place.exists() for place in places):
            assert command.poll() is None
            time.sleep(0.05)
        assert len(at_work_in(tmp_path)) == 3
        command.kill()
    all_ended(tmp_path, within=2)
