"""The whole chain as a user drives it, on a cut-down tiny scale: train, evaluate, test, print; stop and go on."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CUT_DOWN = "overrides=[train.max_steps=2,data.limit=48,train.learning_rate=0.002,threads=1]"
CELLS = ["experiments=[codealpaca_llama3]", "methods=[base,lora,idlora]"]


def command(repository: Path, script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(repository / "scripts" / f"{script}.py"), *arguments]


def run(repository: Path, script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(repository, script, *arguments), cwd=cwd, capture_output=True, text=True, timeout=300)


def table(repository: Path, cwd: Path, *more: str) -> subprocess.CompletedProcess:
    limits = CUT_DOWN[:-1] + ",eval.humaneval.limit=4,eval.humaneval.max_new_tokens=8]"
    return run(repository, "table", "table=table1", *CELLS, limits, "allow_code_execution=true", *more, cwd=cwd)


@pytest.fixture(scope="module")
def filled(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A working folder in which three cells of Table 1 were run, and what the command said."""
    folder = tmp_path_factory.mktemp("smoke")
    return folder, table(repository, folder)


def test_the_table_is_printed_with_gaps_named_and_the_exit_code_says_so(filled) -> None:
    folder, done = filled
    assert done.returncode == 1, done.stderr
    assert "3 cells in" in done.stdout
    markdown = (folder / "results/tiny/tables/table1.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith("|") and "ID-LoRA" in line)
    assert "—" in row
    assert re.search(r"\d+\.\d.*\[\d+\.\d, \d+\.\d\]", row)
    assert "python scripts/train.py experiment=gsm8k_llama3 method=idlora scale=tiny" in markdown


def test_every_cell_leaves_its_config_status_resources_and_records(filled) -> None:
    folder, _ = filled
    runs = sorted((folder / "results/tiny/runs").iterdir())
    assert len(runs) == 3
    for each in runs:
        assert json.loads((each / "status.json").read_text())["state"] == "done"
        assert json.loads((each / "resources.json").read_text())["parameters_total"] > 1_000_000
        records = [json.loads(line) for line in next(each.glob("eval/humaneval-*/items.jsonl")).open()]
        assert len(records) == 4 * 10
    trained = next(each for each in runs if "idlora" in each.name)
    assert (trained / "adapter" / "adapter_model.safetensors").is_file()


def test_metrics_are_tidy_and_count_the_trained_parameters(filled) -> None:
    folder, _ = filled
    rows = list(csv.DictReader((folder / "results/tiny/metrics.csv").open()))
    trainable = {row["method"]: int(row["parameters_trainable"]) for row in rows}
    assert trainable["base"] == 0
    assert trainable["idlora"] / trainable["lora"] == pytest.approx(0.583, abs=0.001)
    assert {row["metric"] for row in rows} == {"pass@1", "pass@5", "pass@10"}


def test_finished_cells_are_not_run_again_and_a_changed_config_is_another_run(filled, repository: Path) -> None:
    folder, _ = filled
    runs = folder / "results/tiny/runs"
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/status.json")}
    again = table(repository, folder)
    assert "cells in" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/status.json")} == before
    missing = run(
        repository, "report", "table=table1", CUT_DOWN.replace("0.002", "0.001"), "allow_missing=true", cwd=folder
    )
    assert missing.returncode == 0, missing.stderr
    row = next(
        line for line in (folder / "results/tiny/tables/table1.md").read_text().splitlines() if "| ID-LoRA" in line
    )
    assert not re.search(r"\d\.\d \[", row.split("|", 4)[4])


def test_a_killed_command_goes_on_and_gives_what_an_unbroken_one_gives(
    filled, repository: Path, tmp_path: Path
) -> None:
    folder, _ = filled
    limits = CUT_DOWN[:-1] + ",eval.humaneval.limit=4,eval.humaneval.max_new_tokens=8]"
    for signal_sent in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(
            command(repository, "table", "table=table1", *CELLS, limits, "allow_code_execution=true"),
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        status = tmp_path / "results/tiny/runs"
        deadline = time.monotonic() + 120
        while not list(status.glob("*lora*/status.json")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal_sent)
        assert process.wait(timeout=60) != 0
    assert table(repository, tmp_path).returncode == 1
    for name in ("metrics.csv", "tables/table1.csv", "significance/table1.csv"):
        assert (tmp_path / "results/tiny" / name).read_text() == (folder / "results/tiny" / name).read_text(), name


def test_one_cell_by_hand_trains_then_evaluates(repository: Path, tmp_path: Path) -> None:
    trained = run(
        repository, "train", "experiment=gsm8k_llama3", "method=idlora", "scale=tiny",
        *CUT_DOWN.removeprefix("overrides=[").removesuffix("]").split(","), cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    folder = re.search(r"trained: (\S+)", trained.stdout)[1]
    scored = run(repository, "evaluate", f"run={folder}", "eval=gsm8k", "eval.gsm8k.limit=6", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert re.search(r"gsm8k strict\s+\d", scored.stdout)
    adapter = run(
        repository, "evaluate", "model=llama3_8b", f"adapter={folder}/adapter", "eval=gsm8k", "eval.gsm8k.limit=6",
        cwd=tmp_path,
    )  # fmt: skip
    assert adapter.returncode == 0, adapter.stderr
    wrong = run(
        repository, "evaluate", "model=mistral_7b", f"adapter={folder}/adapter", "eval=gsm8k", "eval.gsm8k.limit=6",
        cwd=tmp_path,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
    assert "pebble" in wrong.stderr.lower()


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train", ["experiment=gsm8k_llama3", "train.batch_size=15"], ["batch_size", "15"]),
        ("train", ["experiment=gsm8k_llama3", "train.learning_rate=fast"], ["learning_rate", "fast"]),
        ("train", ["experiment=gsm8k_llama3", "data_root=nowhere"], ["data_root", "nowhere"]),
        ("train", ["experiment=gsm8k_llama3", "method.arguments.r=60"], ["60"]),
        ("evaluate", ["run=nowhere"], ["nowhere"]),
        ("report", ["table=table9"], ["table9", "table1"]),
        ("table", ["table=table1"], ["allow_code_execution=true"]),
        ("table", ["table=table1", "scale=paper"], ["GPU", "allow_code_execution=true", "Meta-Llama-3-8B", "hexphi"]),
    ],
)
def test_bad_input_ends_in_one_clear_sentence(
    script: str, arguments: list[str], words: list[str], repository: Path, tmp_path: Path
) -> None:
    refused = run(repository, script, *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    for word in words:
        assert word.lower() in refused.stderr.lower()
