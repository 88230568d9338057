"""docs/adding.md, walked through in a copy of the checkout: each file is written and each command run, as on the page.

As a program, `python tests/test_adding.py`, this file takes the walk in the copy that it lies in and imports. All
commands run in that one process, so that torch is imported once.
"""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from in_process import REPOSITORY, run_jobs_here, run_script

from reproduction.cells.config_schema import ConfigError
from reproduction.commands.new_method import new_method, next_steps
from reproduction.report.collect import metric_rows

PAGE = "docs/adding.md"
LOG = "walked.json"
LONG, WALKED = "my_20_letters_method", "method_of_the_page"
"""The longest name that a method may have, and the one in the place of the page's, which a user may have followed."""

FILE = r"(?P<append>Append to )?`(?P<path>[\w./]+)`:\n```\w+\n(?P<text>.*?)"
STEP = re.compile(rf"^(?:{FILE}|```sh\n(?P<commands>.*?))^```$", re.MULTILINE | re.DOTALL)
SHORT = ["data.limit=64", "train.max_steps=1"]
FEW = [*SHORT, "eval.gsm8k.limit=8", "hparams=default"]
SMALLER = {
    "train": SHORT,
    "tune": ["overrides=" + json.dumps([*SHORT, "data.validation_rows=16"])],
    "table": ["benchmarks=[gsm8k]", "overrides=" + json.dumps(FEW)],
}
"""Overrides by script, the only changes of the page's commands; they take the place of its own `overrides`."""

WORKERS = {"tune": "reproduction.commands.search", "table": "reproduction.running.table"}
"""Module by script whose `run_jobs` would start processes, each of which imports torch."""


def commands(line: str) -> Iterator[list[str]]:
    """Yield the program and arguments of a line of the page: those that make would run, made smaller."""
    words = shlex.split(line)
    if words[0] == "make":
        asked = [*words, "--dry-run", "--no-print-directory", "PY=python"]
        shown = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
        found = [shlex.split(each) for each in shown if each.startswith("python scripts/")]
        assert found, line
    else:
        found = [words]
    for program, *arguments in found:
        assert program == "python", line
        changes = SMALLER.get(Path(arguments[0]).stem, [])
        keys = [each.partition("=")[0] + "=" for each in changes]
        yield [*(each for each in arguments if not each.startswith(tuple(keys))), *changes]


def take(arguments: list[str]) -> dict[str, object]:
    """Run Python with these arguments in this process; return them, the exit code and what was printed."""
    printed, script = io.StringIO(), Path(arguments[0]).stem
    if script in WORKERS:  # imported late: it imports the methods
        import_module(WORKERS[script]).run_jobs = run_jobs_here
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if arguments[:2] == ["-m", "pytest"]:
            code = int(pytest.main(arguments[2:]))
        else:
            code = run_script(script, *arguments[1:])
    return {"arguments": arguments, "code": code, "printed": printed.getvalue()}


def walk() -> None:
    """Take every step of the page, up to the first that fails, and the step that a training names; log the commands."""
    walked = []
    for step in STEP.finditer(Path(PAGE).read_text(encoding="utf-8").replace("mylora", WALKED)):
        if step["path"]:
            file = Path(step["path"])
            file.parent.mkdir(parents=True, exist_ok=True)
            before = file.read_text(encoding="utf-8") if step["append"] else ""
            file.write_text(before + step["text"], encoding="utf-8")
        for arguments in (each for line in (step["commands"] or "").splitlines() for each in commands(line)):
            walked.append(take(arguments))
            if "experiment=places" in arguments and not walked[-1]["code"]:
                named = walked[-1]["printed"].splitlines()[-1]
                walked.append(take(shlex.split(named.removeprefix("next: python "))))
            Path(LOG).write_text(json.dumps(walked), encoding="utf-8")
            if walked[-1]["code"]:
                return


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without results."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "docs", "experiments", "idlora", "reproduction", "scripts", "tests"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, root)
    return root


def content(root: Path) -> dict[str, str]:
    """Return the text of each file in the folders that a method may change."""
    files = (path for folder in ("configs", "experiments", "idlora") for path in (root / folder).rglob("*"))
    texts = (path for path in files if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(root).as_posix(): path.read_text() for path in texts}


def test_a_new_method_is_the_files_that_the_page_names_and_lint_finds_nothing_in_them(copy: Path) -> None:
    before = content(copy)
    written = new_method(LONG, repository=copy)
    changed = {name for name, text in content(copy).items() if before.get(name) != text}
    assert changed == {*written}
    page = (copy / PAGE).read_text().replace("mylora", LONG)
    assert {*re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)} == changed
    assert all(f"\n{step.partition('   # ')[0].strip()}\n" in page for step in next_steps(LONG).splitlines())
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--no-cache", "idlora"], cwd=copy, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_what_cannot_be_a_method_s_name_is_refused_before_anything_is_written(copy: Path) -> None:
    before = content(copy)
    unfit, taken = ["", "MyLora", "two words", "class", "on", LONG + "s"], ["idlora", "id_lora", "controls", "routed"]
    for name in (*unfit, *taken, "lora", "q"):  # PEFT's, a part of the base's own names
        with pytest.raises(ConfigError, match=f"^'{name}' "):
            new_method(name, repository=copy)
    assert content(copy) == before


@pytest.fixture(scope="module")
def walked(copy: Path) -> dict[str, str]:
    """What each command of the page printed, by its arguments, after the whole walk."""
    done = subprocess.run(
        [sys.executable, "tests/test_adding.py"],
        cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = json.loads((copy / LOG).read_text(encoding="utf-8"))
    for each in log:
        assert each["code"] == 0, f"{each['arguments']}:\n{each['printed']}"
    return {shlex.join(each["arguments"]): each["printed"] for each in log}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline="")))


def test_every_command_of_the_page_works_and_leaves_what_it_says(walked: dict[str, str], copy: Path) -> None:
    assert re.search(r"\n\d\d passed", walked["-m pytest tests/tuners/test_tuner_contract.py -k " + WALKED])
    tried = [row for row in rows(copy / "experiments/tuning/tiny/trials.csv") if row["method"] == WALKED]
    (chosen,) = (row for row in rows(copy / "experiments/tuning/tiny/chosen.csv") if row["method"] == WALKED)
    assert chosen["experiment"] == "multitask_llama3"
    assert chosen["learning_rate"] in {row["learning_rate"] for row in tried}
    for table, methods in ((WALKED, ["base", "lora", "idlora", WALKED]), ("ours", ["base", "lora", "dora"])):
        made = rows(copy / f"results/tiny/tables/table_{table}.csv")
        assert [row["method"] for row in made] == methods
        assert all(row["gsm8k"] for row in made)
    trained = {(row["model"], row["method"]) for row in metric_rows(copy / "results/tiny/runs", scale="tiny")}
    assert {("pebble", WALKED), ("pebble", "rslora"), ("mine", "dora")} <= trained
    (evaluated,) = (text for command, text in walked.items() if command.startswith("scripts/evaluate.py run="))
    assert "capitals greedy exact: 0.0 %" in evaluated
    (row,) = (
        row for row in metric_rows(copy / "results/tiny/runs", scale="tiny") if row.get("benchmark") == "capitals"
    )
    assert (row["metric"], float(row["value"]), int(row["items"])) == ("exact", 0, 2)
    (claim,) = (row for row in rows(copy / "results/audit/audit.csv") if row["id"] == "single-fewer-than-dora")
    assert claim["verdict"] == "does not hold"


if __name__ == "__main__":
    walk()
