"""Several processes answer what one would have answered, and none is missed when one of them dies."""

import dataclasses
import json
import os

import pytest
from evaluation_work import PROTOCOLS, Stopped, Stopping, asked, asked_in_all, records, subject_in

from reproduction import tinyworld
from reproduction.cells.evaluation import EvalJob
from reproduction.running.evaluate import ShareFailed, evaluate
from reproduction.running.pool import run_jobs
from reproduction.running.progress import NullProgress


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """Makes a subject with a folder of its own."""
    world = tinyworld.export(tmp_path_factory.mktemp("world"))
    return lambda **changes: subject_in(tmp_path_factory.mktemp("subject"), world, **changes)


@pytest.fixture(scope="module")
def alone(subject):
    """Evaluated by this process."""
    made = subject()
    evaluate(made)
    return made


def costs(subject: EvalJob) -> list[dict]:
    found = [json.loads((subject.answers_folder(p) / "throughput.json").read_text()) for p in subject.protocols]
    timed = ("prefill_seconds", "decode_seconds", "tokens_per_second")
    return [{key: value for key, value in each.items() if key not in timed} for each in found]


def test_what_one_process_began_two_end_with_the_records_of_one_and_everything_is_asked_once(subject, alone):
    shared = subject()
    with pytest.raises(Stopped):
        evaluate(shared, Stopping("gsm8k", 4))
    evaluate(dataclasses.replace(shared, processes=2))
    assert records(shared) == records(alone)
    assert asked_in_all(shared) == asked_in_all(alone)
    assert len(asked(shared)) == 3
    assert min(map(len, asked(shared))) >= 4
    assert costs(shared) == costs(alone)
    assert len(list(shared.folder.rglob("answers*.jsonl"))) == len(PROTOCOLS)


def test_when_a_process_dies_the_others_go_on_and_the_rest_alone_is_asked_again_in_other_batches(subject, alone):
    shared = subject(processes=2)
    (shared.folder / "die").touch()
    with pytest.raises(ShareFailed, match=r"1 of the 2 processes .* \(number [12]: .* SIGKILL.*the same command asks"):
        evaluate(shared)
    everything = asked_in_all(alone)
    assert len(max(asked(shared), key=len)) > everything.total() / 3
    assert not list(shared.folder.rglob("DONE"))
    evaluate(dataclasses.replace(shared, processes=3, batch_size=3))
    assert not (shared.folder / f"loaded.{os.getpid()}").exists()  # who scores needs no model
    assert records(shared) == records(alone)
    assert asked_in_all(shared) == everything


def test_a_worker_of_a_table_may_share_an_evaluation_in_turn(subject, alone):
    shared, ends = subject(processes=2, protocols=PROTOCOLS[:1]), []
    run_jobs(
        evaluate, [shared], workers=2, threads=1, names=["cell"], progress=NullProgress(), ended=ends.append,
    )  # fmt: skip
    assert [end.error for end in ends] == [None]
    assert records(shared).items() <= records(alone).items()
    assert len(asked(shared)) == 2
