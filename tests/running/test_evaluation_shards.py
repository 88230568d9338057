"""Several processes give the same answers as one, and none is missing after one of them dies."""

import dataclasses
import json
import os

import pytest
from evaluation_work import PROTOCOLS, Stopped, Stopping, asked, asked_in_all, records, subject_in

from reproduction import tinyworld
from reproduction.cells.evaluation import EvalJob
from reproduction.running.evaluate import ShardFailed, evaluate


def costs(subject: EvalJob) -> list[dict]:
    found = [json.loads((subject.answers_folder(p) / "throughput.json").read_text()) for p in subject.protocols]
    timed = ("prefill_seconds", "decode_seconds", "tokens_per_second")
    return [{key: value for key, value in each.items() if key not in timed} for each in found]


def test_what_is_answered_is_kept_when_a_process_stops_or_dies_and_the_records_are_those_of_one_process(
    tmp_path_factory,
) -> None:
    world = tinyworld.export(tmp_path_factory.mktemp("world"))
    alone, shared = (subject_in(tmp_path_factory.mktemp("subject"), world) for _ in range(2))
    evaluate(alone)
    with pytest.raises(Stopped):
        evaluate(shared, Stopping("gsm8k", 4))
    (shared.folder / f"loaded.{os.getpid()}").unlink()
    (shared.folder / "die").touch()
    with pytest.raises(ShardFailed, match=r"1 of the 2 processes .* \(number [12]: .* SIGKILL.*the same command asks"):
        evaluate(dataclasses.replace(shared, processes=2))
    everything = asked_in_all(alone)
    assert max(map(len, asked(shared)[1:])) > everything.total() / 4  # the other process went on
    assert not list(shared.folder.rglob("DONE"))
    evaluate(dataclasses.replace(shared, processes=2, batch_size=3))
    assert not (shared.folder / f"loaded.{os.getpid()}").exists()  # scoring needs no model
    assert records(shared) == records(alone)
    assert asked_in_all(shared) == everything
    assert len(asked(shared)) >= 4
    assert len(list(shared.folder.rglob("answers*.jsonl"))) == len(PROTOCOLS)
    assert [each["answers"] for each in costs(shared)] == [each["answers"] for each in costs(alone)]
