"""Two processes train like one: the same rows in each step, the same loss curve, the same weights."""

import json
from pathlib import Path

import forks
import pytest
import torch
import yaml
from cells import METHODS, SHORT, furthest, log, logits, run, saved_weights, schedule, watched
from tracked_runs import tensorboard_history
from two_processes import JOBS, PACKED, train_jobs, train_packed

from reproduction.data import TokenizedSet
from reproduction.training import build_base, load_finished

WRAPPERS = {"ddp": "DistributedDataParallel", "zero2": "DeepSpeedEngine", "zero3": "DeepSpeedEngine"}
NAMES = {
    "ddp": ["full", "lora", "lora_fa", "idlora", "finer", "by length"],
    "zero2": ["full", "idlora", "finer"],
    "zero3": ["full", "idlora", "followed"],
}


@pytest.fixture(scope="module")
def together(base, tokenized, tmp_path_factory, repository):
    """Folders of trainings by two processes, by launch; each contains `printed`."""
    folders: dict[str, Path] = {}

    def folder(launch: str) -> Path:
        if launch not in folders:
            if launch != "ddp" and forks.no_compiler():
                pytest.skip("DeepSpeed builds its communication between processes of a CPU with a C++ compiler")
            config = yaml.safe_load((repository / "configs" / "launch" / f"{launch}.yaml").read_text()).get("deepspeed")
            if launch == "zero3":  # by default only large weights are sharded
                config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
            here = folders[launch] = tmp_path_factory.mktemp(launch)
            forks.together(train_jobs, here, NAMES[launch], base, tokenized.rows, config, folder=here / "printed")
        return folders[launch]

    return folder


@pytest.fixture(scope="module")
def alone(base, tokenized, tmp_path_factory):
    """The same trainings by one process, in as few micro-batches as possible."""
    folders: dict[str, Path] = {}

    def folder(job: str) -> Path:
        if job not in folders:
            method, changes, count = JOBS[job]
            here = folders[job] = tmp_path_factory.mktemp("one")
            rows = TokenizedSet(tokenized.rows[:count], tokenized.ids[:count])
            with watched() as seen:
                run(here, base, METHODS[method], rows, schedule(**changes | {"micro_batch_size": 8}))
            (here / "seen.json").write_text(json.dumps(seen))
        return folders[job]

    return folder


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in log(folder)]


def rows_of(folder: Path) -> list[list[list[int]]]:
    return json.loads((folder / "seen.json").read_text())["rows"]


def ranks(folder: Path) -> list[dict]:
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(("launch", "job"), [(launch, job) for launch in WRAPPERS for job in NAMES[launch]])
def test_two_processes_give_the_training_of_one(launch, job, together, alone):
    both, one = together(launch) / job, alone(job)
    micro_batch = JOBS[job][1]["micro_batch_size"]
    for rank in ranks(both):
        assert rank["world"] == [2, 2]
        assert rank["wrapper"] == WRAPPERS[launch]
        assert rank["division"] == [micro_batch, 4 // micro_batch]
        assert rank["told by the first"] == [True, False]
    assert losses(both) == pytest.approx(losses(one), rel=1e-5)
    assert furthest(saved_weights(both), saved_weights(one)) < 1e-5
    assert [(together(launch) / "printed" / name).read_text() for name in forks.PRINTED] == ["", ""] or launch != "ddp"


@pytest.fixture(scope="module")
def packed(base, tokenized, tmp_path_factory) -> Path:
    """Folder of trainings by two processes with packed passes."""
    here = tmp_path_factory.mktemp("packed")
    forks.together(train_packed, here, base, tokenized.rows, folder=here / "printed")
    return here


@pytest.mark.parametrize("job", PACKED)
def test_two_processes_on_packed_passes_give_the_training_of_one_on_padded_ones(job, packed, alone):
    first, second = ranks(packed / job)
    assert (first["passes"], first["accumulation"]) == ("packed", 2)
    assert first["weights"] == second["weights"]
    assert losses(packed / job) == pytest.approx(losses(alone(job)), rel=1e-5)
    assert furthest(saved_weights(packed / job), saved_weights(alone(job))) < 1e-5
    assert first["wrapper"] != "DistributedDataParallel"
    assert first["tokens"] == second["tokens"] == sum(len(row) for step in rows_of(alone(job)) for row in step)


def test_half_the_batch_would_be_another_training(base, tokenized, alone, tmp_path):
    run(tmp_path, base, METHODS["lora"], tokenized, schedule(batch_size=4, micro_batch_size=4))
    assert furthest(saved_weights(tmp_path), saved_weights(alone("lora"))) > 1e-4
    assert losses(tmp_path) != pytest.approx(losses(alone("lora")), rel=1e-3)


def test_each_step_has_the_same_whole_set_of_rows_in_one_process_in_two_and_in_another_order(
    base, tokenized, together, alone, tmp_path
):
    grouped = rows_of(alone("by length"))
    # 27 rows are three full steps of 8 an epoch; three random rows are dropped.
    assert [len(step) for step in grouped] == [8] * 6
    first, second = (rank["rows"] for rank in ranks(together("ddp") / "by length"))
    for step, mine, theirs in zip(grouped, first, second, strict=True):
        assert (len(mine), len(theirs)) == (4, 4)
        assert sorted([*mine, *theirs]) == sorted(step)
        assert [len(row) for row in step] == sorted(map(len, step), reverse=True)
        # Two processes have rows of similar length in simultaneous micro-batches.
        pairs = [[row for rows in (mine, theirs) for row in rows[at : at + 2]] for at in (0, 2)]
        assert min(map(len, pairs[0])) >= max(map(len, pairs[1]))
    epochs = [[row for step in grouped[start : start + 3] for row in step] for start in (0, 3)]
    assert [len({tuple(row) for row in epoch}) for epoch in epochs] == [24, 24]
    assert sorted(epochs[0]) != sorted(epochs[1])
    with watched() as seen:
        run(tmp_path, base, METHODS["lora"], TokenizedSet(tokenized.rows[:27], tokenized.ids[:27]), schedule(**SHORT))
    assert seen["rows"] != grouped
    assert [sorted(step) for step in seen["rows"]] == [sorted(step) for step in grouped]
    assert losses(alone("by length")) == pytest.approx(losses(tmp_path), rel=1e-5)


def test_a_model_trained_in_parts_is_saved_whole_and_followed_to_the_same_bits(together, base):
    folder = together("zero3") / "full"
    loaded, _ = load_finished(folder, base, METHODS["full"])
    for rank in ranks(folder):
        assert rank["in_parts"]
        torch.testing.assert_close(torch.tensor(rank["logits"]), logits(loaded), rtol=0, atol=1e-6)
    assert (logits(build_base(base)[0]) - logits(loaded)).abs().max() > 1e-2
    followed, alone = (together("zero3") / name for name in ("followed", "idlora"))
    assert furthest(saved_weights(followed), saved_weights(alone)) == 0
    assert len(list((followed / "tensorboard").iterdir())) == 1
    history = tensorboard_history(followed / "tensorboard")
    assert list(history) == [1, 2, 3]
    assert history[1]["router_entropy"] == pytest.approx(1)
