"""A benchmark of one's own, in a folder of one's own, goes through train, evaluate and report as ours do."""

import csv
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FILES = {
    "capitals.py": """\
        from reproduction.data import DatasetSpec
        from reproduction.evals.task import Task

        ROWS = [{"country": "Peru", "capital": "Lima"}, {"country": "Mali", "capital": "Bamako"}]

        class Capitals(Task):
            data = DatasetSpec("capitals", ("country", "capital"), {"test": "test"}, bundled=lambda: ROWS)
            defaults = {"max_new_tokens": 8}

            def instruction(self, row):
                return f"What is the capital of {row['country']}?", ""

            def read(self, row, raw):
                return {"parsed": raw, "gold": row["capital"], "scores": {"exact": float(row["capital"] in raw)}}

        TASK = Capitals()
        """,
    "configs/eval/capitals.yaml": """\
        capitals:
          benchmark: capitals
          file: capitals.py
          protocol_version: 1
          default: [greedy]
          protocols:
            greedy: {temperature: 0.0}
        """,
    "configs/experiment/places.yaml": """\
        # @package _global_
        defaults:
          - override /model: llama3_8b
          - override /data: gsm8k
          - override /eval: [capitals]
        experiment: places
        train:
          {epochs: 1, max_steps: 2, batch_size: 16, learning_rate: 0.001, warmup_steps: 0, dropout: 0, optimizer: sgd}
        data: {limit: 32}
        """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


@pytest.fixture(scope="module")
def run(repository, folder):
    """Runs a script there, as a command line has it."""

    def run(script: str, *arguments: str) -> str:
        command = [sys.executable, repository / script, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def evaluated(run) -> tuple[str, str]:
    """The run's folder after training and the command that training named, and what that said."""
    said = run("scripts/train.py", "--config-dir", "configs", "experiment=places", "method=lora", "scale=tiny")
    command = shlex.split(said.splitlines()[-1].removeprefix("next: python "))
    (trained,) = (part.removeprefix("run=") for part in command if part.startswith("run="))
    return trained, run(*command)


def test_the_commands_that_each_script_names_lead_to_its_rows_in_the_metrics(evaluated, run, folder):
    trained, said = evaluated
    assert "capitals greedy exact: 0.0 %" in said
    assert "2 items" in said
    run("scripts/report.py", "table=table8", "scale=tiny", "allow_missing=true")
    (row,) = csv.DictReader((folder / "results/tiny/metrics.csv").open())
    assert (row["run"], row["status"]) == (Path(trained).name, "done")
    assert (row["benchmark"], row["metric"], row["value"], row["items"]) == ("capitals", "exact", "0.0", "2")


def test_a_mended_reader_scores_the_old_answers(evaluated, run, folder):
    trained, _ = evaluated
    path = folder / "capitals.py"
    text = path.read_text()
    (answers,) = folder.glob(f"{trained}/answers/capitals-*/answers.jsonl")
    before = answers.stat().st_mtime_ns
    path.write_text(text.replace('row["capital"] in raw', "True"))
    try:
        own = ("--config-dir", "configs", f"run={trained}", "eval=capitals", "rescore=true")
        assert "capitals greedy exact: 100.0 %" in run("scripts/evaluate.py", *own)
    finally:
        path.write_text(text)
    assert answers.stat().st_mtime_ns == before
