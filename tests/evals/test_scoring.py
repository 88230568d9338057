"""Stored answers get scores without their model and without torch, and new ones from another judge, limit or reader."""

import dataclasses
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from steps import ALLOWED, judge, scored, store

from reproduction import tinyworld
from reproduction.cells.evaluation import EvalJob
from reproduction.evals import Permissions, Protocol, task
from reproduction.evals.sandbox import ExecutionRefused
from reproduction.evals.task import names
from reproduction.evals.tasks import gsm8k
from reproduction.records import RecordError, read_items
from reproduction.running.evaluate import evaluate

PROGRAM = """
    import json, sys
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
    from pathlib import Path

    FORBIDDEN = {"torch", "transformers", "peft"}

    class Broken(Loader):
        def create_module(self, spec):
            raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name)

        def exec_module(self, module):
            raise AssertionError

    class Here(MetaPathFinder):  # they can be found, as other packages like to know, and no more
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in FORBIDDEN:
                return ModuleSpec(name, Broken())

    sys.meta_path.insert(0, Here())
    try:
        import torch
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit("torch could be imported: this test proves nothing")

    from reproduction.data.templates import ALPACA
    from reproduction.evals import Permissions, Protocol, score

    for job in json.loads(Path(sys.argv[1]).read_text()):
        score(
            protocol=Protocol(**job["protocol"]), rows=job["rows"], shown=[], template=ALPACA,
            answers=Path(job["folder"]) / "answers", identity="a model", folder=Path(job["folder"]) / "elsewhere",
            permissions=Permissions(allow_code_execution=True),
        )
    assert not FORBIDDEN & set(sys.modules)
"""

SUM = {"id": "0", "question": "?", "answer": "#### 3"}
QUIZ = [{"id": f"test/{n}", "question": f"Is it {n}?", "choices": ["yes", "no"], "answer": "AB"[n]} for n in range(2)]
ASKED = [{"id": f"category_1/{n}", "prompt": f"Do {n}.", "category": "category_1"} for n in range(2)]
CODE = {
    "id": "T/0", "task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}  # fmt: skip
REFUSED = (ASKED, ["I cannot do that.", "First, take it."], {"judge": "prefix", "max_new_tokens": 8})
HELD_OUT = ([row | {"answer": "I cannot."} for row in ASKED], REFUSED[1], REFUSED[2] | {"share": 0.1})
CASES = [
    ("gsm8k", [SUM], ["#### 3."], {"max_new_tokens": 8}),
    ("mmlu", [row | {"subject": "doubt"} for row in QUIZ], [[-0.5, -1.5], [-0.25, -4.0]],
     {"scoring": "likelihood", "layout": "raw"}),
    ("commonsenseqa", QUIZ, ["B.", ""], {"scoring": "generated", "max_new_tokens": 8}),
    ("humaneval", [CODE], [["    return 1", "def f(): return 2"]],
     {"max_new_tokens": 8, "samples": 2, "temperature": 1.0}),
    ("heldout", [SUM], [{"nats": 2.5, "tokens": 5, "bytes": 6}], {"scoring": "loss", "source": "gsm8k_test"}),
    ("hexphi", *REFUSED),
    ("hexphi_benign", *REFUSED),
    ("safety_prompts", *HELD_OUT),
    ("harmless_prompts", *HELD_OUT),
]  # fmt: skip


def test_where_torch_cannot_be_imported_scores_are_the_same(repository, tmp_path):
    assert {name for name, *_ in CASES} == set(names())
    jobs, expected = [], []
    for number, (name, rows, answers, settings) in enumerate(CASES):
        settings, folder = {"benchmark": name, "protocol_version": 1, **settings}, tmp_path / str(number)
        store(Protocol(**settings), rows, answers, folder / "answers")
        judge(Protocol(**settings), rows, folder)
        jobs.append({"protocol": settings, "rows": rows, "folder": str(folder)})
        expected.append((folder / "eval" / "items.jsonl").read_text())
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / str(n) / "elsewhere/items.jsonl").read_text() for n in range(len(jobs))] == expected
    assert all((tmp_path / str(n) / "elsewhere/DONE").is_file() for n in range(len(jobs)))


def test_records_hold_hashes_of_item_and_prompt_and_a_folder_is_of_one_evaluation(tmp_path):
    rows = [{"id": f"test/{n}", "question": "One?", "answer": f"#### {n}"} for n in (1, 2)]
    settings = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=8)
    first, second = scored(settings, rows, ["1", "1"], tmp_path)
    assert first["prompt_hash"] == second["prompt_hash"]
    assert first["item_hash"] != second["item_hash"]
    with pytest.raises(RecordError, match="another protocol or other data"):
        judge(dataclasses.replace(settings, protocol_version=2), rows, tmp_path)


# Again

GSM8K = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=8, limit=2)
HEXPHI = Protocol(benchmark="hexphi", protocol_version=1, max_new_tokens=8, limit=2, judge="prefix")
HUMANEVAL = Protocol(benchmark="humaneval", protocol_version=1, max_new_tokens=8, limit=1, execution_seconds=8.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tinyworld.export(tmp_path_factory.mktemp("world"))


@pytest.fixture
def job(world, tmp_path):
    """Makes an evaluation of a model that nobody can load."""

    def make(*protocols: Protocol, **changes) -> EvalJob:
        return EvalJob(
            folder=tmp_path / "run", load=lambda: pytest.fail("the model was loaded"),
            identity=lambda: "a model", protocols=protocols, data_root=world,
            batch_size=1, threads=1, **{"permissions": ALLOWED} | changes,
        )  # fmt: skip

    return make


def answer(job: EvalJob, say) -> None:
    """Stores what ``say`` makes of each row as the answers to the job's protocols."""
    for protocol in job.protocols:
        asked = job.asked(protocol)
        said = [say(row) for row in asked["rows"]][: protocol.limit]
        store(protocol, asked["rows"], said, job.answers_folder(protocol), shown=asked["shown"])


def scores(folder: Path) -> list[dict]:
    return [record["scores"] for record in read_items(folder)]


def test_another_judge_has_a_folder_of_its_own_and_asks_nothing_again(job, monkeypatch):
    monkeypatch.setattr(task, "names", lambda kind="tasks": [*names(kind), "lenient"])
    monkeypatch.setitem(sys.modules, "reproduction.evals.judges.lenient", SimpleNamespace(refuses=lambda *_: False))
    strict = job(HEXPHI)
    answer(strict, lambda row: "I cannot help with that.")
    (before,) = evaluate(strict)
    other = job(dataclasses.replace(HEXPHI, judge="lenient"))
    assert other.answers_folder(*other.protocols) == strict.answers_folder(HEXPHI)
    (after,) = evaluate(other)
    assert (scores(before), scores(after)) == ([{"refusal": 1}] * 2, [{"refusal": 0}] * 2)


def test_another_limit_of_seconds_runs_the_old_answers_anew_and_needs_permission_too(job):
    patient = job(HUMANEVAL)
    answer(patient, lambda row: "import time\ntime.sleep(0.8)\n" + row["prompt"] + row["canonical_solution"])
    with pytest.raises(ExecutionRefused, match="allow_code_execution"):
        evaluate(dataclasses.replace(patient, permissions=Permissions()), rescore=True)
    assert not list(patient.folder.rglob("items.jsonl"))
    (before,) = evaluate(patient)
    (after,) = evaluate(job(dataclasses.replace(HUMANEVAL, execution_seconds=0.3)))
    assert [record["outcome"] for folder in (before, after) for record in read_items(folder)] == ["passed", "timeout"]


def test_a_mended_reader_scores_in_place_on_demand_and_apart_under_a_raised_version(job, monkeypatch):
    ours = job(dataclasses.replace(GSM8K, name="mine"))
    answer(ours, lambda row: f"{row['answer'].rpartition(' ')[2]} it is, and not 7000.")
    (before,) = evaluate(ours)
    monkeypatch.setitem(gsm8k.READINGS["flexible"], "group_select", 0)  # the first number
    (raised,) = evaluate(job(dataclasses.replace(GSM8K, protocol_version=2)))
    assert evaluate(ours) == [before]
    assert scores(before) == [{"strict": 0, "flexible": 0}] * 2
    assert scores(raised) == [{"strict": 0, "flexible": 1}] * 2
    renamed = job(dataclasses.replace(GSM8K, name="yours"))  # the same evaluation
    assert not renamed.waiting
    assert evaluate(renamed, rescore=True) == [before]
    assert scores(before) == scores(raised)


def test_what_was_not_asked_is_not_scored_and_the_old_scores_stay(job):
    ours = job(GSM8K)
    answer(ours, lambda row: row["answer"])
    (folder,) = evaluate(ours)
    path = ours.answers_folder(GSM8K) / "answers.jsonl"
    for lines, missing in ((1, 1), (0, 2)):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
        with pytest.raises(RecordError, match=rf"{missing} of the 2 items .* no answers in .*answers\.jsonl"):
            evaluate(ours, rescore=True)
    assert scores(folder) == [{"strict": 1, "flexible": 1}] * 2
