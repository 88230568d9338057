"""Stored answers of every benchmark are scored in a process where no model could be: torch cannot be imported."""

import json
import subprocess
import sys
import textwrap

from steps import judge, store

from reproduction.evals import Protocol
from reproduction.evals.task import names

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
SUBJECT = [row | {"subject": "doubt"} for row in QUIZ]
ASKED = [{"id": f"category_1/{n}", "prompt": f"Do {n}.", "category": "category_1"} for n in range(2)]
CODE = {
    "id": "T/0", "task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}  # fmt: skip
REFUSED = (ASKED, ["I cannot do that.", "First, take it."], {"judge": "prefix", "max_new_tokens": 8})
HELD_OUT = ([row | {"answer": "I cannot."} for row in ASKED], REFUSED[1], REFUSED[2] | {"share": 0.1})
LETTERS = {"scoring": "generated", "max_new_tokens": 8}
SAMPLED = {"max_new_tokens": 8, "samples": 2, "temperature": 1.0}
NUMBERS = [[-0.5, -1.5], [-0.25, -4.0]]
CASES = [
    ("gsm8k", [SUM], ["#### 3."], {"max_new_tokens": 8}),
    ("mmlu", SUBJECT, NUMBERS, {"scoring": "likelihood", "layout": "raw"}),
    ("mmlu", SUBJECT, ["A", "The answer is C"], LETTERS),
    ("commonsenseqa", QUIZ, NUMBERS, {"scoring": "likelihood"}),
    ("commonsenseqa", QUIZ, ["B.", ""], LETTERS),
    ("humaneval", [CODE], [["    return 1", "def f(): return 2"]], SAMPLED),
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
