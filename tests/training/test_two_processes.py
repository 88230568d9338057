"""Two processes train as one does: the same rows in each step, the same loss curve, the same weights."""

import json
from pathlib import Path

import forks
import pytest
import torch
import yaml
from cells import METHODS, furthest, log, probe, run, saved_weights, schedule, watched
from two_processes import JOBS, PACKED, train_jobs, train_packed

from reproduction.data import TokenizedSet
from reproduction.training import build_base, load_finished

WRAPPERS = {"ddp": "DistributedDataParallel", "zero2": "DeepSpeedEngine", "zero3": "DeepSpeedEngine"}
SHARDED = ["full", "lora", "idlora", "finer"]
NAMES = {"ddp": list(JOBS), "zero2": SHARDED, "zero3": SHARDED}


@pytest.fixture(scope="module")
def together(base, tokenized, tmp_path_factory, repository):
    """The folder of what two processes trained, by the launch; and `printed` in it."""
    folders: dict[str, Path] = {}

    def folder(launch: str) -> Path:
        if launch not in folders:
            if launch != "ddp" and forks.no_compiler():
                pytest.skip("DeepSpeed builds its communication between processes of a CPU with a C++ compiler")
            config = yaml.safe_load((repository / "configs" / "launch" / f"{launch}.yaml").read_text()).get("deepspeed")
            if launch == "zero3":  # the smallest weights too, as else the large ones alone
                config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
            here = folders[launch] = tmp_path_factory.mktemp(launch)
            forks.together(train_jobs, here, NAMES[launch], base, tokenized.rows, config, folder=here / "printed")
        return folders[launch]

    return folder


@pytest.fixture(scope="module")
def alone(base, tokenized, tmp_path_factory):
    """The same by one process, in as few micro-batches as it can."""
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
    assert losses(both) == pytest.approx(losses(one), rel=1e-5)
    assert furthest(saved_weights(both), saved_weights(one)) < 1e-5


@pytest.fixture(scope="module")
def packed(base, tokenized, tmp_path_factory) -> Path:
    """The folder of what two processes trained on packed passes."""
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
    one = [row for step in json.loads((alone(job) / "seen.json").read_text())["rows"] for row in step]
    assert first["tokens"] == second["tokens"] == sum(map(len, one))


def test_half_the_batch_would_be_another_training(base, tokenized, alone, tmp_path):
    run(tmp_path, base, METHODS["lora"], tokenized, schedule(batch_size=4, micro_batch_size=4))
    assert furthest(saved_weights(tmp_path), saved_weights(alone("lora"))) > 1e-4
    assert losses(tmp_path) != pytest.approx(losses(alone("lora")), rel=1e-3)


@pytest.mark.parametrize("job", ["two epochs", "by length"])
def test_each_step_has_the_same_whole_set_of_rows_in_one_process_and_in_two(job, together, alone):
    one = json.loads((alone(job) / "seen.json").read_text())["rows"]
    first, second = (rank["rows"] for rank in ranks(together("ddp") / job))
    # 27 rows are three steps of 8 an epoch, each of them whole; which three are left out is left to chance.
    assert [len(step) for step in one] == [8] * 6
    for step, mine, theirs in zip(one, first, second, strict=True):
        assert (len(mine), len(theirs)) == (4, 4)
        assert sorted([*mine, *theirs]) == sorted(step)
    epochs = [[row for step in one[start : start + 3] for row in step] for start in (0, 3)]
    for epoch in epochs:
        assert len({tuple(row) for row in epoch}) == 24
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) != sorted(epochs[1])


def test_rows_of_like_length_together_change_the_order_within_a_step_alone(together, alone):
    plain, grouped = (json.loads((alone(job) / "seen.json").read_text())["rows"] for job in ("two epochs", "by length"))
    assert plain != grouped
    assert [sorted(step) for step in plain] == [sorted(step) for step in grouped]
    for step in grouped:
        assert [len(row) for row in step] == sorted(map(len, step), reverse=True)
    assert losses(alone("by length")) == pytest.approx(losses(alone("two epochs")), rel=1e-5)
    # Two processes at work on the same micro-batch have rows of like length.
    for steps in zip(*(rank["rows"] for rank in ranks(together("ddp") / "by length")), strict=True):
        pairs = [[row for rows in steps for row in rows[at : at + 2]] for at in (0, 2)]
        assert min(map(len, pairs[0])) >= max(map(len, pairs[1]))


def test_a_model_trained_in_parts_is_saved_whole(together, base):
    folder = together("zero3") / "full"
    in_parts = [torch.tensor(rank["logits"]) for rank in ranks(folder)]
    assert all(rank["in_parts"] for rank in ranks(folder))
    loaded, _ = load_finished(folder, base, METHODS["full"])
    with torch.no_grad():
        whole = loaded(input_ids=probe()).logits
    for logits in in_parts:
        torch.testing.assert_close(logits, whole, rtol=0, atol=1e-6)
        untrained = build_base(base)[0](input_ids=probe()).logits
    assert (untrained - whole).abs().max() > 1e-2


def test_training_prints_nothing_and_draws_no_bar(together):
    assert [(together("ddp") / "printed" / name).read_text() for name in forks.PRINTED] == ["", ""]
