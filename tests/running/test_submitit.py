"""Hydra's -m: the cells of a table side by side through submitit, as on a SLURM cluster, here by its local mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

IN_A_STEP_OF_ONE_TASK = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_STEP_TASKS_PER_NODE": "1",
}  # fmt: skip
"""What SLURM says to the one task of a job that submitit sent: no launch of several processes."""


def sweep(repository: Path, script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(repository / "scripts" / f"{script}.py"), "-m", *arguments]
    environment = os.environ | IN_A_STEP_OF_ONE_TASK
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)


def test_two_cells_are_trained_by_two_jobs_into_folders_of_their_own(repository: Path, tmp_path: Path) -> None:
    few = ["experiment=gsm8k_llama3", "scale=tiny", "hparams=default", "train.max_steps=2", "data.limit=16"]
    few.append("train.batch_size=4")
    done = sweep(repository, "train", "hydra/launcher=submitit_local", "method=lora,idlora", *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = {
        json.loads((each / "config.json").read_text())["method"]["name"]: each
        for each in tmp_path.glob("results/tiny/runs/*")
    }
    assert runs.keys() == {"lora", "idlora"}
    for folder in runs.values():
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
        assert json.loads((folder / "resources.json").read_text())["processes"] == 1
    said = "".join(path.read_text() for path in tmp_path.glob("results/sweeps/.submitit/*/*_log.out"))
    assert all(f"trained: {folder.relative_to(tmp_path)}" in said for folder in runs.values())
    assert {path.name for path in tmp_path.iterdir()} == {"results"}


def test_one_that_fails_is_told_in_its_sentence_and_the_others_are_run(repository: Path, tmp_path: Path) -> None:
    asked = ["scale=tiny", "table=table9,table8"]
    failed = sweep(repository, "list", "hydra/launcher=submitit_local", *asked, cwd=tmp_path)
    assert failed.returncode == 1
    assert "there is no table=table9; the tables are table1," in failed.stderr
    assert "Traceback" not in failed.stderr
    logs = "".join(path.read_text() for path in tmp_path.glob("results/sweeps/.submitit/*/*_log.out"))
    assert "0 of 5 cells are done" in logs
