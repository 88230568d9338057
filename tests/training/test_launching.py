"""Number of processes of a config on a machine, and detection of an existing launch."""

import os
from contextlib import contextmanager
from unittest import mock

import pytest

from reproduction.training import launching
from reproduction.training.launching import Launch, resolve

STEP = {
    "SLURM_JOB_ID": "71234", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "node[03-04]",
}  # fmt: skip


@contextmanager
def environment(**variables):
    with mock.patch.dict(os.environ, variables, clear=True):
        yield os.environ


@pytest.mark.parametrize(
    ("mode", "num_processes", "full", "gpus", "expected"),
    [
        ("auto", None, True, 1, ("single", 1)),
        ("auto", None, True, 2, ("zero3", 2)),
        ("auto", None, False, 2, ("ddp", 2)),
        ("auto", 4, True, 8, ("zero3", 4)),
        ("auto", 1, True, 8, ("single", 1)),
        ("auto", 2, True, 0, ("ddp", 2)),
        ("single", None, True, 8, ("single", 1)),
        ("ddp", None, False, 0, ("ddp", 1)),
        ("zero2", None, False, 2, ("zero2", 2)),
        ("zero3", None, True, 0, ("zero3", 1)),
    ],
)
def test_a_launch_takes_every_gpu_and_auto_shards_what_is_trained_in_full(mode, num_processes, full, gpus, expected):
    with environment():
        launch = resolve(mode, num_processes=num_processes, full=full, gpus=gpus)
    assert (launch.mode, launch.processes) == expected


@pytest.mark.parametrize(
    ("mode", "num_processes", "gpus", "world", "offending"),
    [
        ("zero4", None, 0, None, "launch=zero4"),
        ("ddp", 0, 0, None, "launch.num_processes=0"),
        ("ddp", 4, 2, None, "launch.num_processes=4 and 2 visible GPUs"),
        ("single", 2, 0, None, "launch=single is one process, and 2"),
        ("single", None, 8, "2", "launch=single is one process, and 2"),
        ("ddp", 4, 8, "2", "launch.num_processes=4, and this process is one of 2"),
    ],
)
def test_what_cannot_be_launched_is_refused_with_its_value(mode, num_processes, gpus, world, offending):
    variables = {} if world is None else {"RANK": "1", "WORLD_SIZE": world}
    with environment(**variables), pytest.raises(ValueError, match=offending.replace(".", r"\.")):
        resolve(mode, num_processes=num_processes, full=False, gpus=gpus)
    with pytest.raises(ValueError, match=r"launch\.memory_gb=1"):
        resolve("single", num_processes=None, full=False, gpus=0, memory_gb=1)


def test_inside_a_launch_its_size_counts_and_nothing_more_is_started():
    with environment(RANK="3", WORLD_SIZE="16"):  # two machines: more ranks than local GPUs
        assert (launching.inside(), launching.rank()) == (True, 3)
        for mode, full, expected in (("auto", True, "zero3"), ("auto", False, "ddp"), ("zero2", True, "zero2")):
            launch = resolve(mode, num_processes=None, full=full, gpus=8)
            assert (launch, launch.needs_ranks) == (Launch(mode=expected, processes=16), False)
    with environment(RANK="0", WORLD_SIZE="1"):
        assert resolve("auto", num_processes=None, full=True, gpus=8) == Launch(mode="single", processes=1)
    with environment():
        launching.join()
        assert (launching.inside(), launching.rank()) == (False, 0)
        assert (launching.from_first_rank(True), launching.from_first_rank(False)) == (True, False)
        needs = [Launch(mode="ddp"), Launch(mode="zero2"), Launch(mode="ddp", processes=2)]
        assert [launch.needs_ranks for launch in needs] == [False, True, True]


def test_the_tasks_of_a_slurm_step_are_ranks():
    with environment(**STEP) as variables:
        assert (launching.inside(), launching.rank()) == (True, 5)
        found = {name: variables[name] for name in ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")}
        assert found == {"WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "node03"}
        port = variables["MASTER_PORT"]
        assert 10000 <= int(port) < 60000
    with environment(**STEP | {"SLURM_PROCID": "2", "MASTER_ADDR": "head"}) as variables:
        assert launching.rank() == 2
        assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("head", port)
    with environment(**STEP, RANK="0", WORLD_SIZE="2"):  # srun starts one torchrun per machine
        assert (launching.rank(), resolve("ddp", num_processes=None, full=False, gpus=2).processes) == (0, 2)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("node[9,11-12]", "node9"),
        ("node[010-012,3]", "node010"),
        ("a1,b2", "a1"),
        ("a1,b[2-3]", "a1"),
    ],
)
def test_the_ranks_of_a_slurm_step_meet_on_its_first_machine(nodes, first):
    with environment(**STEP | {"SLURM_STEP_NODELIST": nodes}) as variables:
        assert launching.inside()
        assert variables["MASTER_ADDR"] == first


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {**STEP, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"},
    ],
    ids=["a batch script", "a step of one task, as submitit has", "a shell in an allocation"],
)
def test_what_is_no_slurm_step_of_several_tasks_is_no_launch(variables):
    with environment(**variables):
        assert not launching.inside()
        assert "RANK" not in os.environ
