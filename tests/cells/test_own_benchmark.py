"""A user's own benchmark, in a folder of their own, works with train, evaluate and report."""

import csv
import shlex
import textwrap
from pathlib import Path

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


def test_the_commands_that_each_script_names_lead_to_its_rows_in_the_metrics(
    tmp_path: Path, script, monkeypatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))

    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> str:
        done = script(Path(name).stem, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    own = ("scale=tiny", f"results_dir={tmp_path / 'results'}")
    trained = run("train", "--config-dir", "configs", "experiment=places", "method=lora", *own)
    command = shlex.split(trained.splitlines()[-1].removeprefix("next: python "))
    (folder,) = (part.removeprefix("run=") for part in command if part.startswith("run="))
    evaluated = run(*command)
    assert "capitals greedy exact: 0.0 %" in evaluated
    assert "2 items" in evaluated
    run("report", "table=table8", *own, "allow_missing=true")
    (row,) = csv.DictReader((tmp_path / "results/tiny/metrics.csv").open())
    assert (row["run"], row["status"]) == (Path(folder).name, "done")
    assert (row["benchmark"], row["metric"], row["value"], row["items"]) == ("capitals", "exact", "0.0", "2")
