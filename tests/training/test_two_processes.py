import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from cells import METHODS, furthest, run, saved_weights, schedule

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained_by_two(base, tokenized, tmp_path_factory, repository) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "task.json").write_text(json.dumps({"base": asdict(base), "rows": tokenized.rows}))
    paths = [str(repository), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(HERE / "two_processes.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "printed.json").write_text(json.dumps([done.stdout, done.stderr]))
    return folder


def test_training_prints_nothing_and_draws_no_bar(trained_by_two):
    # Seen in processes of their own: libraries print when they are imported, and once.
    out, err = json.loads((trained_by_two / "printed.json").read_text())
    assert out == ""
    assert "%|" not in err


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_give_the_training_of_one(name, trained_by_two, base, tokenized, tmp_path):
    worlds = [json.loads(path.read_text()) for path in sorted((trained_by_two / name).glob("world-*.json"))]
    assert worlds == [[2, 2], [2, 2]]
    run(tmp_path / "one", base, METHODS[name], tokenized, schedule())
    run(tmp_path / "half", base, METHODS[name], tokenized, schedule(batch_size=4, micro_batch_size=4))
    together, alone = saved_weights(trained_by_two / name), saved_weights(tmp_path / "one")
    assert furthest(together, alone) < 1e-5
    assert furthest(saved_weights(tmp_path / "half"), alone) > 1e-4
    logs = [
        (folder / "train_log.jsonl").read_text().splitlines() for folder in (trained_by_two / name, tmp_path / "one")
    ]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
