"""All commands of a user on a reduced tiny scale: train, evaluate, test, print, stop and resume."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest

from reproduction import tinyworld
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.evaluation import EvalJob
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.commands.tables import Request
from reproduction.running.evaluate import evaluate
from reproduction.running.run_lock import seconds_at_work
from reproduction.running.train import run_cell, train_cell
from reproduction.training import UnfitAdapter
from reproduction.training.adapters import WrongBase

OVERRIDES = ["train.max_steps=2", "data.limit=48", "train.learning_rate=0.002"]
CELLS = ["methods=[base,lora,idlora]", "benchmarks=[humaneval]"]


def command(repository: Path, script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(repository / "scripts" / f"{script}.py"), *arguments]


def run(repository: Path, script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(repository, script, *arguments), cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny world with a few test items of each kind, as a folder for data_root."""
    root = tinyworld.export(tmp_path_factory.mktemp("world"))
    for name, kept in (("humaneval/HumanEval.jsonl", 2), ("gsm8k/test.jsonl", 6)):
        lines = (root / name).read_text().splitlines(keepends=True)
        (root / name).write_text("".join(lines[:kept]))
    return root


def table_arguments(world: Path, workers: int = 1) -> list[str]:
    overrides = f"overrides={json.dumps(OVERRIDES)}"
    return ["table=table3", *CELLS, overrides, f"data_root={world}", f"workers={workers}", "allow_code_execution=true"]


@pytest.fixture(scope="module")
def filled(
    repository: Path, world: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess]:
    """Return a working folder with three finished cells of Table 3, and the command's result."""
    folder = tmp_path_factory.mktemp("smoke")
    return folder, run(repository, "table", *table_arguments(world), cwd=folder)


def test_a_table_is_printed_with_gaps_named_and_every_cell_leaves_its_records(filled) -> None:
    folder, done = filled
    assert done.returncode == 1, done.stderr
    assert "3 cells in" in done.stdout
    markdown = (folder / "results/tiny/tables/table3.md").read_text()
    full, empty = (
        next(line for line in markdown.splitlines() if f"| {name}" in line) for name in ("ID-LoRA", "SS + RB")
    )
    assert re.search(r"\d+\.\d.*\[\d+\.\d, \d+\.\d\]", full)
    assert "—" in empty
    asked = "table=table3 scale=tiny 'experiments=[multitask_llama3_2_3b]' 'methods=[idlora_serial]'"
    assert f"scripts/table.py {asked}" in markdown
    runs = sorted((folder / "results/tiny/runs").iterdir())
    assert len(runs) == 3
    for each in runs:
        assert json.loads((each / "status.json").read_text())["state"] == "done"
        assert json.loads((each / "resources.json").read_text())["parameters_total"] > 1_000_000
        assert len(next(each.glob("eval/humaneval-*/items.jsonl")).read_text().splitlines()) == 2 * 10
    trained = next(each for each in runs if "idlora" in each.name)
    assert (trained / "adapter" / "adapter_model.safetensors").is_file()
    rows = list(csv.DictReader((folder / "results/tiny/metrics.csv").open()))
    trainable = {row["method"]: int(row["parameters_trainable"]) for row in rows}
    assert trainable["base"] == 0
    assert trainable["idlora"] / trainable["lora"] == pytest.approx(0.583, abs=0.001)
    assert {row["metric"] for row in rows} == {"pass@1", "pass@5", "pass@10"}


def test_a_killed_command_goes_on_and_gives_what_an_unbroken_one_gives(
    filled, repository: Path, world: Path, tmp_path: Path
) -> None:
    folder, _ = filled
    process = subprocess.Popen(
        command(repository, "table", *table_arguments(world, workers=2)),
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    # With two workers, a third started cell means that one is finished.
    while len(list(tmp_path.glob("results/tiny/runs/*/status.json"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None, "the command ended before it could be stopped"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)  # only the command: its workers must end too
    assert process.wait(timeout=120) != 0
    deadline = time.monotonic() + 60
    while session_of(process.pid):
        assert time.monotonic() < deadline, "a worker outlived the command"
        time.sleep(0.05)
    states = {path: json.loads(path.read_text())["state"] for path in tmp_path.glob("results/tiny/runs/*/status.json")}
    done = {path: path.stat().st_mtime_ns for path, state in states.items() if state == "done"}
    assert run(repository, "table", *table_arguments(world), cwd=tmp_path).returncode == 1
    assert {path: path.stat().st_mtime_ns for path in done} == done != {}, "what is finished is not run again"
    for name in ("metrics.csv", "tables/table3.csv", "significance/table3.csv"):
        assert (tmp_path / "results/tiny" / name).read_text() == (folder / "results/tiny" / name).read_text(), name


def session_of(leader: int) -> list[int]:
    """Return the living processes of a session, without zombies."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # gone since
        if int(session) == leader and state != "Z":
            alive.append(int(path.parent.name))
    return alive


def test_a_record_cut_off_is_noticed_and_made_again_from_the_answers(filled, world: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(filled[0], tmp_path / "copy")
    run_folder = next(folder.glob("results/tiny/runs/gravel-multitask-idlora-*"))
    adapter = run_folder / "adapter" / "adapter_model.safetensors"
    items, answers = (next(run_folder.glob(f"{place}/humaneval-*/*s.jsonl")) for place in ("eval", "answers"))
    whole, trained, answered = items.read_bytes(), adapter.stat().st_mtime_ns, answers.stat().st_mtime_ns
    items.write_bytes(whole[: len(whole) // 2])
    here = [
        f"results_dir={folder / 'results'}",
        f"data_root={world}",
        "allow_code_execution=true",
        *OVERRIDES,
        "eval=[humaneval]",
    ]
    cell = compose_cell("multitask_llama3_2_3b", "idlora", scale="tiny", seed=0, overrides=here)
    assert cell.missing == ["not evaluated on humaneval (template_t0.6)"]
    before = seconds_at_work(run_folder)
    run_cell(cell)
    assert cell.complete
    assert seconds_at_work(run_folder) > before > 0
    assert items.read_bytes() == whole
    assert (adapter.stat().st_mtime_ns, answers.stat().st_mtime_ns) == (trained, answered)
    items.write_bytes(whole[: len(whole) // 2])
    saved = adapter.read_bytes()
    adapter.write_bytes(saved[:-1] + bytes([saved[-1] ^ 1]))
    with pytest.raises(UnfitAdapter, match=rf"{adapter} has changed since the run saved its adapter"):
        run_cell(cell)  # the answers are the old adapter's, and are not scored


def test_one_cell_by_hand_trains_then_evaluates_and_is_scored_again_from_its_answers(
    repository: Path, world: Path, tmp_path: Path
) -> None:
    small = [f"data_root={world}"]
    page = (repository / "docs" / "running.md").read_text().partition("## One cell by hand")[2]
    train, evaluate_, *reports = re.findall(r"^python scripts/(.*)$", page.partition("\n```\n")[0], re.MULTILINE)

    def run(line: str, *arguments: str) -> subprocess.CompletedProcess:
        script, *words = shlex.split(line, comments=True)
        return forks.start(repository / "scripts" / script, [*words, *arguments], folder=tmp_path).end()

    trained = run(train, *small, *OVERRIDES)
    assert trained.returncode == 0, trained.stderr
    folder = tmp_path / re.search(r"trained: (\S+)", trained.stdout)[1]
    scored = run(evaluate_.replace("<the folder it printed>", str(folder)), *small, "eval=[gsm8k]")
    assert scored.returncode == 0, scored.stderr
    assert re.search(r"gsm8k 0shot strict: \d.*6 questions", scored.stdout)
    assert len(reports) == 2
    for line in reports:
        reported = run(line)
        assert reported.returncode == 1, reported.stderr  # most of the table is missing

    def job(*overrides: str) -> EvalJob:
        return eval_job_from_config(compose("evaluate", [*overrides, *small, f"results_dir={tmp_path / 'brought'}"]))

    brought = ["scale=tiny", "eval=gsm8k", f"adapter={folder}/adapter"]
    evaluate(job("model=llama3_8b", *brought))
    records = [next(place.glob("**/gsm8k-*/items.jsonl")) for place in (folder, tmp_path / "brought")]
    before = records[0].read_text()
    assert before == records[1].read_text()
    records[0].unlink()
    evaluate(job(f"run={folder}", "eval=[gsm8k]"), rescore=True)
    assert records[0].read_text() == before
    with pytest.raises(WrongBase, match="pebble"):
        job("model=mistral_7b", *brought).load()
    alone = shutil.copytree(folder / "adapter", tmp_path / "alone")
    (alone / "base.json").unlink()
    asked = ["model=llama3_8b", "scale=tiny", "eval=gsm8k", f"adapter={alone}"]
    with pytest.raises(UnfitAdapter, match="allow_unknown_base=true"):
        job(*asked).load()
    job(*asked, "allow_unknown_base=true").load()


def test_what_does_not_fit_is_refused_with_its_value(tmp_path: Path) -> None:
    too_many_rows = [f"results_dir={tmp_path}", "hparams=default", "method.arguments.r=60"]
    cell = compose_cell("gsm8k_llama3", "idlora", scale="tiny", seed=0, overrides=too_many_rows)
    with pytest.raises(ValueError, match="60"):
        train_cell(cell)
    assert cell.run.state == "failed"
    odd = ["hparams=default", "train.batch_size=15", "launch=ddp", "launch.num_processes=2"]
    with pytest.raises(ValueError, match="batch_size=15 cannot be shared evenly by 2 processes"):
        compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=odd).division  # noqa: B018
    with pytest.raises(ConfigError, match="nowhere"):
        eval_job_from_config(compose("evaluate", ["run=nowhere"]))
    with pytest.raises(ConfigError, match=r"table9.*table1"):
        Request.from_config(plain(compose("report", ["table=table9"])))
