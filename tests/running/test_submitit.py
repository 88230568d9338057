"""Hydra's -m with submitit: cells of a table in parallel as on a SLURM cluster, here in its local mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

IN_A_STEP_OF_ONE_TASK = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_STEP_TASKS_PER_NODE": "1",
}  # fmt: skip
"""SLURM's variables for the only task of a submitit job, which is no multi-process launch."""


def sweep(repository: Path, script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(repository / "scripts" / f"{script}.py"), "-m", *arguments]
    environment = os.environ | IN_A_STEP_OF_ONE_TASK
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)


def test_each_job_trains_a_cell_of_its_own_and_one_that_is_refused_fails_alone(
    repository: Path, tmp_path: Path
) -> None:
    few = ["experiment=gsm8k_llama3", "scale=tiny", "hparams=default", "train.max_steps=2", "data.limit=16"]
    few += ["train.batch_size=4", "method=lora", "data.max_length=320,-1"]
    done = sweep(repository, "train", "hydra/launcher=submitit_local", *few, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "-1" in done.stderr
    runs = {
        json.loads((each / "config.json").read_text())["data"]["max_length"]: each
        for each in tmp_path.glob("results/tiny/runs/*")
    }
    assert runs.keys() == {320}
    printed = "".join(path.read_text() for path in tmp_path.glob("results/sweeps/.submitit/*/*_log.out"))
    for folder in runs.values():
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
        assert json.loads((folder / "resources.json").read_text())["processes"] == 1
        assert f"trained: {folder.relative_to(tmp_path)}" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"results"}
