"""Pivots of a base that DeepSpeed ZeRO-3 keeps in parts, on two processes of the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tuner_models import make_adapted

HERE = Path(__file__).parent


def test_a_base_in_parts_gives_the_pivots_of_the_whole_one_and_is_never_whole(tmp_path, repository, monkeypatch):
    pytest.importorskip("deepspeed")
    paths = [str(repository), str(HERE), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(HERE / "select_on_zero3.py"), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("rank-*.json"))]
    whole = make_adapted("idlora")
    pivots = {n: layer.idlora_pivots["default"].tolist() for n, layer in whole.pivot_layers("default").items()}
    assert len(ranks) == 2
    for rank in ranks:
        assert (rank["world"], rank["in_parts_before"], rank["in_parts_after"]) == (2, True, True)
        assert rank["whole_at_once"] == 1
        assert rank["pivots"] == rank["again"] == pivots
        assert rank["fingerprints"] == whole.peft_config["default"].base_fingerprint
    assert [rank["cached"] for rank in ranks] == [True, False]  # and neither waited for the other
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache-0"))
    assert make_adapted("idlora").base_model.pivots_cached  # the content of the whole weights
