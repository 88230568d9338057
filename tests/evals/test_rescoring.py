"""Answers that are there get new scores: from another judge, limit or reader, and without their model."""

import copy
import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from steps import ALLOWED, store

from reproduction import tinyworld
from reproduction.cells.evaluation import EvalJob
from reproduction.evals import Permissions, Protocol, task
from reproduction.evals.sandbox import ExecutionRefused
from reproduction.evals.tasks import gsm8k
from reproduction.records import RecordError, read_items
from reproduction.running.evaluate import evaluate

GSM8K = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=8, limit=2)
HEXPHI = Protocol(benchmark="hexphi", protocol_version=1, max_new_tokens=8, limit=2, judge="prefix")
HUMANEVAL = Protocol(benchmark="humaneval", protocol_version=1, max_new_tokens=8, limit=2, execution_seconds=8.0)
SLOW = "import time\ntime.sleep(0.8)\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tinyworld.export(tmp_path_factory.mktemp("world"))


@pytest.fixture
def subject(world, tmp_path):
    """Makes a subject whose model nobody can load."""

    def make(*protocols: Protocol, **changes) -> EvalJob:
        return EvalJob(
            folder=tmp_path / "run", load=lambda: pytest.fail("the model was loaded"),
            identity=lambda: "a model", protocols=protocols, data_root=world,
            batch_size=1, threads=1, **{"permissions": ALLOWED} | changes,
        )  # fmt: skip

    return make


@pytest.fixture
def lenient(monkeypatch) -> str:
    """A judge that takes nothing for a refusal."""
    names = task.names
    monkeypatch.setattr(task, "names", lambda kind="tasks": [*names(kind), "lenient"])
    monkeypatch.setitem(sys.modules, "reproduction.evals.judges.lenient", SimpleNamespace(refuses=lambda *_: False))
    return "lenient"


def answer(subject: EvalJob, say) -> None:
    """Stores what ``say`` makes of each row as the answers to the subject's protocols."""
    for protocol in subject.protocols:
        asked = subject.asked(protocol)
        said = [say(row) for row in asked["rows"]][: protocol.limit]
        store(protocol, asked["rows"], said, subject.answers_folder(protocol), shown=asked["shown"])


def scores(folder: Path) -> list[dict]:
    return [record["scores"] for record in read_items(folder)]


def test_another_judge_has_a_folder_of_its_own_and_asks_nothing_again(subject, lenient):
    strict = subject(HEXPHI)
    answer(strict, lambda row: "I cannot help with that.")
    (before,) = evaluate(strict)
    other = subject(dataclasses.replace(HEXPHI, judge=lenient))
    assert other.answers_folder(*other.protocols) == strict.answers_folder(HEXPHI)
    (after,) = evaluate(other)
    assert scores(before) == [{"refusal": 1}] * 2
    assert scores(after) == [{"refusal": 0}] * 2


def test_another_limit_of_seconds_runs_the_old_answers_anew(subject):
    patient = subject(HUMANEVAL)
    answer(patient, lambda row: SLOW + row["prompt"] + row["canonical_solution"])
    (before,) = evaluate(patient)
    (after,) = evaluate(subject(dataclasses.replace(HUMANEVAL, execution_seconds=0.3)))
    assert [record["outcome"] for record in read_items(before)] == ["passed"] * 2
    assert [record["outcome"] for record in read_items(after)] == ["timeout"] * 2


def test_a_mended_reader_scores_in_place_on_demand_and_apart_under_a_raised_version(subject, monkeypatch):
    ours = subject(GSM8K)
    answer(ours, lambda row: f"{row['answer'].rpartition(' ')[2]} it is, and not 7000.")
    (before,) = evaluate(ours)
    mended = copy.deepcopy(gsm8k.READING)
    mended["filter_list"][1]["filter"][0]["group_select"] = 0  # the first number
    monkeypatch.setattr(gsm8k, "READING", mended)
    (raised,) = evaluate(subject(dataclasses.replace(GSM8K, protocol_version=2)))
    assert evaluate(ours) == [before]
    assert scores(before) == [{"strict": 0, "flexible": 0}] * 2
    assert scores(raised) == [{"strict": 0, "flexible": 1}] * 2
    assert evaluate(ours, rescore=True) == [before]
    assert scores(before) == scores(raised)


def test_a_protocol_under_another_name_is_the_same_evaluation(subject):
    ours = subject(dataclasses.replace(GSM8K, name="mine"))
    answer(ours, lambda row: row["answer"])
    (folder,) = evaluate(ours)
    renamed = subject(dataclasses.replace(GSM8K, name="yours"))
    assert not renamed.waiting
    assert evaluate(renamed, rescore=True) == [folder]
    assert scores(folder) == [{"strict": 1, "flexible": 1}] * 2


def test_what_was_not_asked_is_not_scored_and_the_file_and_the_way_out_are_named(subject):
    ours = subject(GSM8K)
    answer(ours, lambda row: row["answer"])
    (folder,) = evaluate(ours)
    path = ours.answers_folder(GSM8K) / "answers.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(RecordError, match=r"1 of the 2 items .* no answers in .*answers\.jsonl.* without rescore=true"):
        evaluate(ours, rescore=True)
    path.unlink()
    with pytest.raises(RecordError, match=r"2 of the 2 items"):
        evaluate(ours, rescore=True)
    assert scores(folder) == [{"strict": 1, "flexible": 1}] * 2  # as they were


def test_rescoring_what_a_model_wrote_as_code_needs_permission_too(subject):
    ours = subject(HUMANEVAL)
    answer(ours, lambda row: row["canonical_solution"])
    with pytest.raises(ExecutionRefused, match="allow_code_execution"):
        evaluate(dataclasses.replace(ours, permissions=Permissions()), rescore=True)
    assert not list(ours.folder.rglob("items.jsonl"))
