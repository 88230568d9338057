"""Answers and scores: answers are kept and reused by every way of scoring, also after an early end."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from evaluation_work import PROTOCOLS, Stopped, Stopping, asked_in_all, load_watched, loaded, records, subject_in

from reproduction import tinyworld
from reproduction.cells.compose import compose
from reproduction.cells.evaluation import EvalJob, model_identity
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.data.templates import Template
from reproduction.evals.answering import answer
from reproduction.evals.answers import Shard, gather
from reproduction.evals.sandbox import ExecutionRefused, Permissions
from reproduction.evals.task import Protocol
from reproduction.evals.tasks.hexphi import Refusals
from reproduction.preflight import NotReady, require_evaluation
from reproduction.records import RecordError, read_items
from reproduction.running.evaluate import evaluate
from reproduction.training import ModelSpec

GSM8K, MMLU, HUMANEVAL = PROTOCOLS
HEXPHI = Protocol(benchmark="hexphi", protocol_version=1, max_new_tokens=12, judge="prefix")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tinyworld.export(tmp_path_factory.mktemp("world"))


@pytest.fixture
def subject(world, tmp_path) -> EvalJob:
    return subject_in(tmp_path, world)


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory) -> EvalJob:
    """Return a job evaluated without interruption."""
    made = subject_in(tmp_path_factory.mktemp("alone"), world)
    evaluate(made)
    return made


def no_model():
    raise AssertionError("the model was loaded")


def test_an_evaluation_stopped_while_it_answers_goes_on_with_other_batches_and_asks_nothing_twice(subject, alone):
    for phase in ("gsm8k", "mmlu"):
        with pytest.raises(Stopped):
            evaluate(subject, Stopping(phase, 4))
    assert not list(subject.folder.rglob("items.jsonl"))
    evaluate(dataclasses.replace(subject, batch_size=5))
    assert records(subject) == records(alone)
    assert asked_in_all(subject) == asked_in_all(alone)


def test_an_evaluation_stopped_while_it_runs_programs_is_scored_again_without_the_model(subject, alone):
    with pytest.raises(Stopped):
        evaluate(subject, Stopping("humaneval scoring", 2))
    assert not (subject.eval_folder(HUMANEVAL) / "DONE").exists()
    assert [protocol.benchmark for protocol in subject.waiting] == ["humaneval"]
    evaluate(dataclasses.replace(subject, load=no_model, batch_size=1, processes=4))
    assert records(subject) == records(alone)
    assert not list(subject.folder.rglob("status.json"))


def test_answers_outlive_their_scores_and_serve_every_way_of_scoring(world, tmp_path):
    subject = subject_in(tmp_path, world, protocols=(GSM8K, HUMANEVAL))
    evaluate(subject)
    (subject.eval_folder(HUMANEVAL) / "items.jsonl").unlink()
    fewer = dataclasses.replace(GSM8K, limit=4, protocol_version=2)
    less = dataclasses.replace(HUMANEVAL, samples=1)
    later = dataclasses.replace(subject, load=no_model, protocols=(GSM8K, HUMANEVAL, fewer, less))
    first, again, *_ = map(read_items, evaluate(later))
    assert read_items(later.eval_folder(fewer)) == first[:4]
    assert read_items(later.eval_folder(less)) == [record for record in again if record["sample"] == 0]
    more = dataclasses.replace(HUMANEVAL, samples=4)
    evaluate(dataclasses.replace(subject, batch_size=4, protocols=(more,)))
    assert [record for record in read_items(subject.eval_folder(more)) if record["sample"] < 2] == again
    assert sorted(asked_in_all(subject).values()) == [1] * 9 + [2] * 3  # problems for two samples, and for two more


def test_an_evaluation_with_worked_examples_is_not_scored_on_answers_to_the_bare_questions(world, tmp_path):
    bare = dataclasses.replace(MMLU, num_fewshot=0)
    subject = subject_in(tmp_path, world, protocols=(bare,))
    evaluate(subject)
    evaluate(dataclasses.replace(subject, protocols=(MMLU, bare)))
    assert {record["shots"] for record in read_items(subject.eval_folder(MMLU))} == {2}
    assert sum(asked_in_all(subject).values()) == 2 * 7


def test_scores_are_made_anew_of_the_answers_that_are_there_and_only_of_those(subject, alone):
    again = dataclasses.replace(alone, load=no_model)
    before = records(alone)
    items = alone.eval_folder(GSM8K) / "items.jsonl"
    items.write_bytes(before["gsm8k/items.jsonl"].replace(b'"strict": 0.0', b'"strict": 1.0'))
    evaluate(again, rescore=True)
    assert records(alone) == before
    with pytest.raises(RecordError, match=r"9 of the 9 items of gsm8k have no answers in .*without rescore=true"):
        evaluate(dataclasses.replace(subject, load=no_model), rescore=True)


def test_two_evaluations_that_put_the_same_to_a_model_share_its_answers_in_every_share(world, tmp_path):
    protocols = (GSM8K, dataclasses.replace(GSM8K, protocol_version=2), dataclasses.replace(GSM8K, limit=5))
    subject = subject_in(tmp_path, world, protocols=protocols)
    model, tokenizer = load_watched(tmp_path)
    for count, own in ((1, protocols[:2]), (2, protocols[2:])):
        for index in range(2):
            for protocol in own:
                answer(
                    **subject.asked(protocol), model=model, tokenizer=tokenizer, batch_size=2, identity="one",
                    folder=subject.answers_folder(protocol), share=Shard(index, 2),
                )  # fmt: skip
        assert max(asked_in_all(subject).values()) <= count  # of a limit's other batches a share has answered a part
    assert len(gather(subject.answers_folder(GSM8K))) == 9


def test_nothing_is_asked_where_programs_may_not_run_and_what_is_scored_needs_no_permission(world, tmp_path):
    subject = subject_in(tmp_path, world, protocols=(GSM8K, HUMANEVAL))
    forbidden = dataclasses.replace(subject, permissions=Permissions())
    for rescore in (False, True):
        with pytest.raises(ExecutionRefused, match="allow_code_execution"):
            evaluate(forbidden, rescore=rescore)
    assert loaded(subject) == 0
    with pytest.raises(NotReady, match=r"^2 evaluations of .*missing:\n  1\. humaneval: .*allow_code_execution=true"):
        require_evaluation(forbidden)
    with pytest.raises(NotReady, match=r"\n  1\. data set gsm8k: "):  # humaneval's are in a package
        require_evaluation(dataclasses.replace(subject, data_root=tmp_path))
    require_evaluation(subject)
    evaluate(subject)
    require_evaluation(forbidden)


def test_scores_of_another_model_are_refused_however_often_they_are_asked_for(subject, world, tmp_path):
    subject = dataclasses.replace(subject, protocols=(GSM8K,))
    evaluate(subject)
    trained_again = dataclasses.replace(subject, identity=lambda: "another")
    for _ in range(2):
        with pytest.raises(RecordError, match="are another model's"):
            evaluate(trained_again)
        assert trained_again.waiting == [GSM8K]


def test_where_scores_lie_tells_what_was_asked_of_which_data_and_nothing_else(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(Refusals, "check", lambda self, protocol: None)  # of judges there is one, and here are two
    other_data = shutil.copytree(subject.data_root, tmp_path / "data")
    for name in ("hexphi/category_1.csv", "mmlu/test/homes_test.csv"):
        (other_data / name).write_text((other_data / name).read_text() + "\n")

    def folders(protocol: Protocol, **changes) -> tuple[str, str]:
        made = dataclasses.replace(subject, **changes)
        return made.eval_folder(protocol).name, made.answers_folder(protocol).name

    mine = Template("mine", "Ask: {{ instruction }}\nSay: ")
    for protocol in (HEXPHI, HUMANEVAL, MMLU, dataclasses.replace(HUMANEVAL, layout="raw")):
        own = folders(protocol)
        assert own == folders(dataclasses.replace(protocol, name="renamed"))
        assert own == folders(protocol, batch_size=1, processes=7, threads=3)
        assert own == folders(protocol, template=Template("renamed"))
        rescored = [dataclasses.replace(protocol, **new) for new in ({"protocol_version": 2}, {"limit": 2})]
        rescored += [dataclasses.replace(HEXPHI, judge="another")] if protocol == HEXPHI else []
        rescored += [dataclasses.replace(protocol, samples=9)] if protocol.samples > 1 else []
        scores, answers = zip(own, *map(folders, rescored), strict=True)
        assert len(set(scores)) == len(rescored) + 1
        assert len(set(answers)) == 1
        changed = folders(protocol, data_root=other_data)
        assert (changed[0] != own[0]) == (protocol.benchmark != "humaneval")  # whose data are the same there
        assert (changed[1] != own[1]) == bool(protocol.num_fewshot)  # its worked examples may be others
        assert (folders(protocol, template=mine)[0] != own[0]) == (protocol.layout == "template")
    decoded = [{"temperature": 0.5}, {"max_new_tokens": 13}, {"top_p": 0.5}, {"seed": 1}, {"layout": "raw"}]
    redone = [HUMANEVAL, *(dataclasses.replace(HUMANEVAL, **new) for new in decoded)]
    assert len({folders(protocol)[1] for protocol in redone}) == len(redone)
    assert folders(dataclasses.replace(GSM8K, seed=1))[1] == folders(GSM8K)[1]  # greedy: no number is drawn


def test_batches_and_processes_are_keys_of_the_config_and_decide_nothing_that_is_asked(tmp_path):
    overrides = [f"output={tmp_path}", "eval=gsm8k"]
    own = [[], ["eval_processes=2", "eval_batch_size=3"]]
    subjects = [eval_job_from_config(compose("evaluate", [*overrides, *each])) for each in own]
    assert [(subject.processes, subject.batch_size) for subject in subjects] == [(None, None), (2, 3)]
    (protocol,) = subjects[0].protocols
    assert len({(subject.eval_folder(protocol), subject.answers_folder(protocol)) for subject in subjects}) == 1
    for key in ("eval_processes", "eval_batch_size"):
        with pytest.raises(ValueError, match=f"{key}=0"):
            eval_job_from_config(compose("evaluate", [*overrides, f"{key}=0"]))


def test_a_model_is_known_by_its_weights_and_its_adapters_and_not_by_its_place(tmp_path):
    for name, content in (("one", "a"), ("copy", "a"), ("other", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_text(content)
    base = ModelSpec(name="base", label="base", path_or_id="owner/base", revision="a" * 40)
    one, copy, other = (model_identity(base, tmp_path / name) for name in ("one", "copy", "other"))
    assert one == copy
    bases = [dataclasses.replace(base, **new) for new in ({}, {"revision": "b" * 40}, {"dtype": "bfloat16"})]
    assert len({one, other, *(model_identity(each, None) for each in bases)}) == 5


def test_a_process_that_evaluates_keeps_to_the_cap_of_its_launch(subject, monkeypatch):
    asked = []
    monkeypatch.setattr("reproduction.training.launching.cap_memory", asked.append)
    evaluate(dataclasses.replace(subject, memory_gb=20.0, protocols=subject.protocols[:1]))
    assert asked == [20.0]
    cell = compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=["train.learning_rate=0.01"])
    capped = dataclasses.replace(cell, launch=dataclasses.replace(cell.launch, memory_gb=30.0))
    assert (cell.eval_job.memory_gb, capped.eval_job.memory_gb) == (None, 30.0)
