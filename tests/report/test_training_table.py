"""Cost of training from finished runs: rows, scaling, and problems that a measurement must not show."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction.records import Run, write_json
from reproduction.report.training import problems, training_rows, write_training


def made_run(folder: Path, *, method: str, processes: int, launch: str, tokens: float, **changes) -> Run:
    resources = {
        "launch": launch, "processes": processes, "step_seconds_median": 2.0, "step_seconds_iqr": 0.1,
        "step_seconds_max": 2.2, "tokens_per_second": tokens, "peak_memory_bytes": 30_000_000_000, "final_loss": 9.0,
        "steps": 2, "micro_batch_size": 4, "accumulation": 8 // processes, "parameters_trainable": 10,
        "adapter_bytes": 40, "selection_seconds": 0.0, "device": "NVIDIA H200",
    } | changes  # fmt: skip
    config = {
        "experiment": "e", "scale": "paper", "seed": 0, "model": {"name": "m", "label": "M"},
        "method": {"name": method, "label": method.upper(), "kind": "peft"}, "data": {"name": "d", "max_length": 1024},
        "train": {"batch_size": 32},
    }  # fmt: skip
    run = Run(folder / f"{method}-{processes}")
    run.start(config)
    log = [json.dumps({"step": step, "loss": 11.0 - step}) + "\n" for step in (1, 2)]
    (run.folder / "train_log.jsonl").write_text("".join(log))
    run.finish(resources)
    return run


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    return [
        made_run(tmp_path, method="lora", processes=2, launch="ddp", tokens=19_000.0),
        made_run(tmp_path, method="lora", processes=1, launch="single", tokens=10_000.0),
        made_run(tmp_path, method="fft", processes=2, launch="zero3", tokens=12_000.0),
        made_run(tmp_path, method="fft", processes=1, launch="single", tokens=10_000.0),
    ]


def test_scaling_is_against_the_same_cell_on_one_gpu_and_a_good_measurement_has_no_problems(runs, tmp_path):
    command = "python scripts/train.py method=lora results_dir=elsewhere 'overrides=[a, b]'"
    write_json(runs[0].folder / "provenance.json", runs[0].provenance | {"command": command})
    rows = {(row["method"], row["processes"]): row for row in training_rows(runs)}
    assert [rows[key]["scaling"] for key in (("LORA", 2), ("LORA", 1), ("FFT", 2))] == [1.9, None, 1.2]
    assert (rows["LORA", 2]["first_loss"], rows["LORA", 2]["tokens_per_step"]) == (10.0, 38_000)
    assert rows["LORA", 2]["command"] == "python scripts/train.py method=lora 'overrides=[a, b]'"
    assert problems(list(rows.values()), memory_bytes=80e9, scaling=1.85) == []  # ZeRO-3 is exempt from scaling
    table, words = write_training(training_rows(runs), tmp_path / "out")
    written = list(csv.DictReader(table.open(newline="")))
    assert [row["method"] for row in written] == ["FFT", "FFT", "LORA", "LORA"]
    assert (written[3]["scaling"], written[3]["packing"]) == ("1.9", "false")
    assert "| M | LORA | 2 (ddp) | 2·4·4 | 2.00 | 19,000 | 1.90 | 30.0 | — | 10.00 → 9.00 |" in words.read_text()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"final_loss": 10.0}, "the loss went from 10.000 to 10.000"),
        ({"peak_memory_bytes": 81_000_000_000}, "81.0 GB at the peak, 80.0 allowed"),
        ({"step_seconds_max": 4.1}, "a step took 4.10 s, the median 2.00 s"),
        ({"tokens": 18_000.0}, "1.800 times the tokens/s of one GPU, 1.85 asked for"),
    ],
)
def test_what_must_not_be_seen_is_told(changes, sentence, tmp_path):
    settings = {"method": "lora", "processes": 2, "launch": "ddp", "tokens": 19_000.0} | changes
    alone = made_run(tmp_path, method="lora", processes=1, launch="single", tokens=10_000.0)
    found = problems(training_rows([made_run(tmp_path, **settings), alone]), memory_bytes=80e9, scaling=1.85)
    assert found == [f"M, LORA, 2 process(es): {sentence}"]


def test_the_command_goes_on_past_damaged_runs_and_ends_with_1(runs, tmp_path, repository):
    write_json(runs[0].folder / "resources.json", runs[0].resources | {"tokens_per_second": 15_000.0})
    for name, method in (("status.json", "dora"), ("train_log.jsonl", "moelora")):
        damaged = made_run(tmp_path, method=method, processes=1, launch="single", tokens=10_000.0)
        (damaged.folder / name).write_text("{\n")
    done = subprocess.run(
        [sys.executable, "scripts/scaling.py", str(tmp_path), "--into", str(tmp_path / "out")],
        cwd=repository, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1.500 times the tokens/s of one GPU" in done.stderr
    assert "dora-1/status.json is not JSON" in done.stderr
    assert "moelora-1/train_log.jsonl has a line that is no step; delete its folder" in done.stderr
    assert len((tmp_path / "out" / "training.csv").read_text().splitlines()) == 1 + len(runs)
