"""Training in several processes from one command: same numbers and exit codes as one, and it resumes after any end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import faults
import forks
import pytest
import torch.distributed.run
from forks import all_ended, at_work_in, no_compiler

from reproduction import tinyworld
from reproduction.records import Run, find_runs

pytestmark = pytest.mark.build

DDP, ZERO3 = (["launch=ddp", "launch.num_processes=2"], ["launch=zero3", "launch.num_processes=2"])
CELL = [
    "experiment=gsm8k_llama3", "method=lora", "scale=tiny", "data.limit=24", "train.batch_size=4", "train.save_steps=2",
    "train.dropout=0.3", "hparams=default",
]  # fmt: skip


class Train:
    """Runs scripts/train.py for a number of steps in a folder."""

    def __init__(self, script: Path, world: Path):
        self.script, self.world = script, world

    def arguments(self, steps: int) -> list[str]:
        return [*CELL, f"data_root={self.world}", f"train.max_steps={steps}"]

    def __call__(self, folder: Path, steps: int, *more: str, fault=None) -> forks.Started:
        return forks.start(self.script, [*self.arguments(steps), *more], folder=folder, fault=fault)

    def inside_torchrun(self, steps: int, *more: str, folder: Path, fault=None) -> forks.Started:
        command = ["--standalone", "--nproc_per_node=2", str(self.script), *self.arguments(steps), *more]
        return forks.start(Path(torch.distributed.run.__file__), command, folder=folder, fault=fault)


@pytest.fixture(scope="module")
def train(repository, tmp_path_factory) -> Train:
    return Train(repository / "scripts" / "train.py", tinyworld.export(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def unbroken(train, tmp_path_factory):
    """Return a function from steps and launch to the folder of an uninterrupted run."""
    folders = {}

    def folder(steps: int, *launch: str) -> Path:
        if (steps, launch) not in folders:
            here = folders[steps, launch] = tmp_path_factory.mktemp("unbroken")
            done = train(here, steps, *launch, fault=faults.steps_written).end()
            assert (done.returncode, own_lines(done)) == (0, [])
        return folders[steps, launch]

    return folder


OURS = re.compile(
    r"Traceback |error: |interrupted|rank \d|.*(checkpoint-\d|is_gradient_checkpointing"
    r"|`(torch\.distributed\.\w+|broadcast_buffers)` is deprecated)"
)


def own_lines(ended: subprocess.CompletedProcess) -> list[str]:
    """Return the lines of stderr from this project, and warnings that it silences; other packages print more."""
    return [line for line in ended.stderr.splitlines() if OURS.match(line)]


def without_times(stdout: str) -> list[str]:
    timed = re.compile(r"first step after|^(\[\d+/\d+\] )?\w+/\w+: ")
    return [line for line in stdout.splitlines() if not timed.search(line)]


def run_in(folder: Path) -> Run:
    (run,) = find_runs(folder / "results" / "tiny" / "runs")
    return run


def curve(folder: Path) -> list[str]:
    return (run_in(folder).folder / "train_log.jsonl").read_text().splitlines()


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in run_in(folder).folder.glob("checkpoints/checkpoint-*"))


def first_step(folder: Path) -> str:
    """Return the first step that the command received, from `faults.steps_written`."""
    return (folder / "steps").read_text().partition(" loss")[0]


def sent(started: forks.Started, number: signal.Signals, *, after: int, folder: Path) -> subprocess.CompletedProcess:
    """Signal the command after a number of logged steps; its ranks must end too."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("results/tiny/runs/*/train_log.jsonl")) or len(curve(folder)) < after:
        assert started.process.is_alive(), started.end()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(at_work_in(folder)) == 3
    os.kill(started.pid, number)
    began = time.monotonic()
    ended = started.end()
    all_ended(folder, within=2)
    assert time.monotonic() - began < 10
    return ended


def test_whatever_ends_a_run_in_two_ranks_the_same_command_goes_on(train, unbroken, tmp_path):
    here, steps = tmp_path, 12
    start = partial(train, here, steps, *DDP)

    def status() -> tuple[str, str]:
        all_ended(here)
        return run_in(here).status["state"], run_in(here).status["reason"]

    ended = start(fault=partial(faults.killed, 3, 1)).end()
    (sentence,) = own_lines(ended)
    assert ended.returncode == 1
    assert sentence.startswith("rank 1 of 2 was killed by SIGKILL")
    assert status() == ("failed", f"RanksFailed: {sentence}")
    assert checkpoints(here) == ["checkpoint-2"]

    ended = start(fault=partial(faults.full_disk, 5)).end()
    assert ended.returncode == 2
    (line,) = own_lines(ended)
    assert re.match(r"error: Checkpoint \S*checkpoint-6 could not be written with \d+\.\d GB free", line)
    assert (status()[0], checkpoints(here)) == ("failed", ["checkpoint-2", "checkpoint-4"])
    assert not (run_in(here).folder / "checkpoints" / ".aside").exists()

    ended = sent(start(fault=partial(faults.stuck, 7, 1)), signal.SIGINT, after=7, folder=here)
    assert (ended.returncode, own_lines(ended)) == (130, ["interrupted; the same command goes on where it stopped"])
    assert status()[0] == "interrupted"

    ended = sent(start(fault=partial(faults.stuck, 11, 1)), signal.SIGKILL, after=11, folder=here)
    assert (ended.returncode, status()) == (-signal.SIGKILL, ("running", ""))
    assert checkpoints(here) == ["checkpoint-10", "checkpoint-8"]

    os.truncate(run_in(here).folder / "checkpoints" / "checkpoint-10" / "optimizer.pt", 1000)
    ended = start(fault=faults.steps_written).end()
    assert (ended.returncode, status()[0], first_step(here)) == (0, "done", "training 9/12")
    assert re.search(r"checkpoint-10 is damaged .*: \S*checkpoint-10/optimizer\.pt has changed", ended.stderr)
    assert curve(here) == curve(unbroken(steps, *DDP))
    assert run_in(here).status["attempts"] == 5
    assert not (run_in(here).folder / "checkpoints").exists()


def test_whatever_ends_a_run_in_one_process_the_same_command_goes_on(train, unbroken, tmp_path):
    here, steps = tmp_path, 6
    start = partial(train, here, steps)
    ended = start(fault=partial(faults.killed_while_saving, 4)).end()
    assert (ended.returncode, run_in(here).state, checkpoints(here)) == (-signal.SIGKILL, "running", ["checkpoint-2"])
    unfinished = run_in(here).folder / "checkpoints" / ".aside"
    assert (unfinished / "checkpoint-4").is_dir()
    ended = start(fault=partial(faults.full_disk, 3)).end()
    assert (ended.returncode, run_in(here).state, checkpoints(here)) == (2, "failed", ["checkpoint-2"])
    assert not unfinished.exists()
    assert "checkpoint-4 could not be written" in ended.stderr
    ended = start(fault=faults.steps_written).end()
    assert (ended.returncode, own_lines(ended), run_in(here).state) == (0, [], "done")
    assert first_step(here) == "training 3/6"
    assert curve(here) == curve(unbroken(steps))
    assert run_in(here).status["attempts"] == 3


@pytest.mark.skipif(no_compiler(), reason="DeepSpeed builds its communication between processes of a CPU with g++")
def test_a_run_whose_weights_are_in_parts_goes_on_from_its_checkpoint(train, unbroken, tmp_path):
    here, steps, launch = tmp_path, 4, ("method=fft", *ZERO3)
    ended = train(here, steps, *launch, fault=partial(faults.killed, 3)).end(300)  # DeepSpeed is built first
    assert (ended.returncode, checkpoints(here)) == (1, ["checkpoint-2"])
    ended = train(here, steps, *launch, fault=faults.steps_written).end()
    assert (ended.returncode, own_lines(ended), first_step(here)) == (0, [], "training 3/4")
    assert ended.stdout.startswith("4 rows a step = 2 process(es) × 1 passes × 2 rows (launch=zero3)\n")
    alone = unbroken(steps, "method=fft")  # by one process: without dropout it draws nothing else
    losses = [[json.loads(line)["loss"] for line in curve(folder)] for folder in (here, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert run_in(here).resources["processes"] == 2


@pytest.mark.parametrize(
    ("launch", "fault", "state", "value"),
    [
        ([], partial(faults.bad_value, 0), "failed", "method.arguments.r=60"),
        (DDP, partial(faults.out_of_memory, 0, 1), "oom", "train.micro_batch_size="),
    ],
    ids=["a bad value", "too little memory of a rank"],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(train, tmp_path, launch, fault, state, value):
    ended = train(tmp_path, 2, *launch, fault=fault).end()
    (line,) = own_lines(ended)
    assert line.startswith("error: ")
    assert value in line
    assert (ended.returncode, run_in(tmp_path).state) == (2, state)
    assert value in run_in(tmp_path).status["reason"]


@pytest.mark.parametrize(("launch", "steps"), [([], 6), (DDP, 12)], ids=["one process", "two"])
def test_too_little_memory_halves_the_pass_and_goes_on_from_the_last_checkpoint(
    train, unbroken, tmp_path, launch, steps
):
    rows = 4 // (2 if launch else 1)
    ended = train(tmp_path, steps, *launch, fault=partial(faults.out_of_memory_above, rows // 2, 5)).end()
    assert ended.returncode == 0
    assert f"train.micro_batch_size={rows // 2}." in ended.stderr
    resources = run_in(tmp_path).resources
    assert (resources["micro_batch_size"], resources["accumulation"]) == (rows // 2, 2)
    assert resources["out_of_memory_at_micro_batch_size"] == rows
    assert resources["steps_timed"] < steps  # of the second session, which began at a checkpoint
    assert [json.loads(line)["step"] for line in curve(tmp_path)] == list(range(1, steps + 1))
    whole = run_in(unbroken(steps, *launch)).resources
    assert "out_of_memory_at_micro_batch_size" not in whole
    assert set(whole["startup_seconds"]) == {"imports", "base", "data", "adapter", "trainer"}
    assert min(whole["startup_seconds"].values()) > 0


def test_a_batch_that_the_ranks_cannot_share_is_refused_before_any_is_started(train, tmp_path):
    ended = train(tmp_path, 2, "train.batch_size=15", *DDP).end()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "train.batch_size=15" in ended.stderr
    assert not list(tmp_path.glob("results/tiny/runs/*"))


def test_the_same_command_launches_itself_or_joins_a_launch(repository, train, unbroken, tmp_path):
    reference = unbroken(12, *DDP)
    steps = (reference / "steps").read_text().splitlines()
    assert re.fullmatch(r"training 1/12 loss \d+\.\d\d", steps[0])
    assert len(steps) == len(set(steps)) <= 12  # of one rank
    # Only this test starts the ranks as new interpreters, as for a user.
    command = [sys.executable, str(train.script), *train.arguments(12), *DDP]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    itself = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=240)
    joined = train.inside_torchrun(12, "launch=ddp", folder=tmp_path / "torchrun").end()
    for done, folder in ((itself, tmp_path), (joined, tmp_path / "torchrun")):
        assert (done.returncode, own_lines(done)) == (0, [])
        assert curve(folder) == curve(reference)
        assert without_times(done.stdout) == without_times((reference / "stdout").read_text())
        run, keys = run_in(folder), ("processes", "micro_batch_size", "accumulation", "launch")
        assert [run.resources[key] for key in keys] == [2, 2, 1, "ddp"]
        assert run.status["attempts"] == 1
        assert run.provenance["command"].startswith(f"python {repository}/scripts/train.py experiment=")


def test_a_rank_that_fails_in_a_launch_that_was_joined_says_so_once(train, tmp_path):
    ended = train.inside_torchrun(2, "launch=ddp", folder=tmp_path, fault=partial(faults.defect, 1, 1)).end()
    assert (ended.returncode, ended.stderr.count("in _err")) == (1, 1)
    assert run_in(tmp_path).state == "failed"
    assert run_in(tmp_path).status["reason"] == "rank 1: KeyError: 'no such expert'"
