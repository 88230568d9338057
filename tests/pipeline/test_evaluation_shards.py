"""Several processes answer what one would have answered, and none is missed when one of them dies."""

import dataclasses
import functools
import itertools
import json
import os
from collections import Counter

import pytest
from evaluation_work import load_watched

from idlora import tinyworld
from idlora.evals.protocol import Permissions, Protocol
from idlora.pipeline.compose import compose, subject_from_config
from idlora.pipeline.evaluation import ShareFailed, Subject, evaluate_all, load_model
from idlora.pipeline.pool import run_jobs
from idlora.pipeline.progress import Silent
from idlora.training import ModelSpec

PROTOCOLS = (
    Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=12, limit=9),
    Protocol(benchmark="mmlu", protocol_version=1, scoring="likelihood", num_fewshot=2, limit=7),
    Protocol(
        benchmark="humaneval", protocol_version=1, max_new_tokens=12, limit=3, samples=3, temperature=1.0,
        execution_seconds=1.0,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tinyworld.export(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def subject(world, tmp_path_factory):
    """Makes a subject with a folder of its own, in which its model leaves what it was asked."""

    def make(**changes) -> Subject:
        folder = tmp_path_factory.mktemp("subject")
        settings = {
            "folder": folder, "load": functools.partial(load_watched, folder), "protocols": PROTOCOLS,
            "data_root": world, "batch_size": 2, "threads": 1, "permissions": Permissions(allow_code_execution=True),
        }  # fmt: skip
        return Subject(**settings | changes)

    return make


@pytest.fixture(scope="module")
def alone(subject):
    """Evaluated by this process."""
    made = subject()
    evaluate_all(made)
    return made


def records(subject: Subject) -> dict[str, bytes]:
    """What is compared of every evaluation, by benchmark and file."""
    return {
        f"{protocol.benchmark}/{name}": (subject.eval_folder(protocol) / name).read_bytes()
        for protocol in subject.protocols
        for name in ("meta.json", "items.jsonl", "DONE")
    }


def asked(subject: Subject) -> list[list[str]]:
    """The prompts that each process read."""
    return [path.read_text().splitlines() for path in sorted(subject.folder.glob("asked.*"))]


def costs(subject: Subject) -> list[dict]:
    found = [json.loads((subject.eval_folder(p) / "throughput.json").read_text()) for p in subject.protocols]
    timed = ("prefill_seconds", "decode_seconds", "tokens_per_second")
    return [{key: value for key, value in each.items() if key not in timed} for each in found]


class Stopped(Exception):
    pass


class Stopping(Silent):
    def step(self, phase, done, total, *, note="", slot=0):
        if done >= 4:
            raise Stopped


def test_what_one_process_began_two_end_with_the_records_of_one_and_everything_is_asked_once(subject, alone):
    shared = subject()
    with pytest.raises(Stopped):
        evaluate_all(shared, Stopping())
    assert len(list(shared.folder.rglob("answers.jsonl"))) == 1
    evaluate_all(dataclasses.replace(shared, processes=2))
    assert records(shared) == records(alone)
    assert Counter(itertools.chain(*asked(shared))) == Counter(*asked(alone))
    assert len(asked(shared)) == 3
    assert min(map(len, asked(shared))) >= 4
    assert costs(shared) == costs(alone)
    assert not list(shared.folder.rglob("answers*"))


def test_when_a_process_dies_the_others_go_on_and_the_rest_alone_is_asked_again(subject, alone):
    shared = subject(processes=2)
    (shared.folder / "die").touch()
    with pytest.raises(ShareFailed, match=r"1 of the 2 processes .* \(number [12]: .* SIGKILL.*the same command asks"):
        evaluate_all(shared)
    everything = Counter(*asked(alone))
    assert len(max(asked(shared), key=len)) > everything.total() / 3
    assert not list(shared.folder.rglob("DONE"))
    evaluate_all(dataclasses.replace(shared, processes=3))
    assert not (shared.folder / f"loaded.{os.getpid()}").exists()  # who scores needs no weights
    assert records(shared) == records(alone)
    assert Counter(itertools.chain(*asked(shared))) == everything
    assert not list(shared.folder.rglob("answers*"))


def test_a_worker_of_a_table_may_share_an_evaluation_in_turn(subject, alone):
    shared, ends = subject(processes=2, protocols=PROTOCOLS[:1]), []
    run_jobs(
        evaluate_all, [shared], workers=2, threads=1, names=["cell"], progress=Silent(), ended=ends.append,
    )  # fmt: skip
    assert [end.error for end in ends] == [None]
    assert records(shared).items() <= records(alone).items()
    assert len(asked(shared)) == 2


def test_a_model_without_weights_knows_its_config_and_tokenizer(tmp_path):
    model, tokenizer = load_watched(tmp_path)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    spec = ModelSpec(name="small", label="small", path_or_id=str(tmp_path / "base"))
    shell, ours = load_model(spec, None, weights=False)
    assert shell.device.type == "meta"
    assert shell.config.max_position_embeddings == 8192
    assert ours("abc") == tokenizer("abc")


def test_the_number_of_processes_is_a_key_of_the_config_and_decides_nothing_that_is_asked(tmp_path):
    overrides = [f"output={tmp_path}", "eval=gsm8k"]
    subjects = [subject_from_config(compose("evaluate", [*overrides, *own])) for own in ([], ["eval_processes=2"])]
    assert [subject.processes for subject in subjects] == [None, 2]
    (protocol,) = subjects[0].protocols
    assert subjects[0].eval_folder(protocol) == subjects[1].eval_folder(protocol)
    with pytest.raises(ValueError, match="eval_processes=0 answer nothing"):
        subject_from_config(compose("evaluate", [*overrides, "eval_processes=0"]))
