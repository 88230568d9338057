"""Rows per pass and gradient checkpointing fit the memory, equally in all processes."""

import dataclasses
from types import SimpleNamespace

import pytest
from made_gpus import gpu

from reproduction.cells.cell import Cell
from reproduction.cells.sizes import kinds_of
from reproduction.preflight.fits import slow_on_cpu
from reproduction.running.memory import estimated_bytes, fitted, fitted_now, fitted_to_the_papers, room_on
from reproduction.running.progress import NullProgress
from reproduction.running.table import as_many_as_fit, on_part_of_a_gpu, workers_per_gpu
from reproduction.running.train import in_smaller_passes
from reproduction.training import OutOfMemory
from reproduction.training.batches import Packing
from reproduction.training.launching import Launch

GB = 10**9


def changed(cell: Cell, **train) -> Cell:
    return dataclasses.replace(cell, train=dataclasses.replace(cell.train, **train))


def test_packed_rows_take_less_and_a_batch_that_cannot_be_shared_is_left_alone(paper: dict[str, Cell]) -> None:
    odd = dataclasses.replace(paper["lora"], launch=Launch(mode="ddp", processes=3))
    assert fitted(odd, 85 * GB) == odd
    lora, short = paper["lora"], Packing((100,) * 99, 512, 32, by_length=True)
    padded, packed = (fitted(lora, 45 * GB, packing=each).train.micro_batch_size for each in (None, short))
    assert 1 < padded < packed == 16  # five examples in a row
    narrow = Packing((100,) * 99, 192, 32, by_length=True)  # each in a row of its own
    taken = [estimated_bytes(changed(lora, micro_batch_size=16), packing=each) for each in (short, narrow, None)]
    assert taken[0] < taken[1] < taken[2]


@pytest.mark.parametrize(("free", "reserved", "cap"), [(45, 0, None), (30, 15, None), (70, 0, 45), (70, 70, 45)])
def test_a_pass_is_fitted_to_the_memory_that_is_free_and_to_a_workers_share(
    paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, cap: int | None
) -> None:
    monkeypatch.setattr("reproduction.running.memory.gpus", lambda: (gpu(80),))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free * GB, 80 * GB))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: reserved * GB)
    cell = dataclasses.replace(paper["lora"], launch=Launch(mode="ddp", processes=2, memory_gb=cap))
    assert fitted_now(cell) == fitted(cell, 45 * GB) != fitted(cell, 75 * GB)
    monkeypatch.setattr("reproduction.running.memory.launching.min_over_ranks", lambda value: min(value, 30 * GB))
    assert fitted_now(cell) == fitted(cell, 30 * GB)  # what another process of the launch has


def test_what_is_auto_takes_the_least_where_nothing_fits_and_what_is_fixed_stays(paper, tiny, monkeypatch) -> None:
    lora = paper["lora"]
    assert fitted(lora, 17 * GB) == changed(lora, micro_batch_size=1, gradient_checkpointing=True)
    unknown = dataclasses.replace(lora.model, path_or_id="nobody/unknown", shape=None)
    cell = dataclasses.replace(lora, model=unknown)
    assert fitted(cell, 17 * GB) == changed(cell, micro_batch_size=4, gradient_checkpointing=True)
    assert fitted_now(tiny) == fitted(tiny, 10**6) == tiny
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2 * 30 * GB))
    whole = fitted_now(changed(tiny, micro_batch_size="auto", gradient_checkpointing="auto")).train
    assert (whole.micro_batch_size, whole.gradient_checkpointing) == (tiny.train.batch_size, False)
    assert fitted_now(lora) == fitted(lora, 30 * GB) != fitted(lora, 60 * GB)  # its two processes share the memory
    fixed = changed(lora, micro_batch_size=16, gradient_checkpointing=True)
    assert fitted_now(fixed) == fixed != fitted(fixed, 22 * GB)


@pytest.mark.parametrize(
    ("rows", "launched", "tried"),
    [(8, False, [(8, "auto"), (4, True)]), (1, False, [(1, "auto")]), (8, True, [(8, "auto")])],
    ids=["halved once", "one row cannot be halved", "a launch that was joined is not started again"],
)
def test_out_of_memory_is_tried_once_more_with_half_the_rows_and_what_was_chosen(
    tiny: Cell, monkeypatch: pytest.MonkeyPatch, rows: int, launched: bool, tried: list
) -> None:
    monkeypatch.setattr("reproduction.running.train.launching.inside", lambda: launched)
    asked = []

    def train(cell: Cell, progress: NullProgress) -> dict:
        asked.append((cell.train.micro_batch_size, cell.train.gradient_checkpointing))
        raise OutOfMemory("Out of memory.", rows=cell.train.micro_batch_size, checkpointing=True)

    with pytest.raises(OutOfMemory):
        in_smaller_passes(train, changed(tiny, micro_batch_size=rows, gradient_checkpointing="auto"), NullProgress())
    assert asked == tried


def test_the_papers_gpu_stands_in_where_there_is_none(paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    lora = paper["lora"]
    capped = dataclasses.replace(lora, launch=dataclasses.replace(lora.launch, memory_gb=30))
    assert fitted_to_the_papers(capped) == fitted(capped, 30 * GB) != fitted(capped, 80 * GB)
    assert fitted_to_the_papers(lora) == fitted(lora, 80 * GB)
    assert room_on((gpu(40),), dataclasses.replace(lora, launch=Launch(memory_gb=60))) == 40 * GB
    monkeypatch.setattr("reproduction.running.memory.gpus", lambda: (gpu(45),))
    assert fitted_to_the_papers(lora) == fitted(lora, 45 * GB) != fitted(lora, 80 * GB)
    assert len(kinds_of([lora, changed(lora, gradient_checkpointing=True)])) == 2


def test_a_real_model_on_the_cpu_is_said_to_be_slow_and_a_small_one_is_not(paper: dict[str, Cell], tiny: Cell) -> None:
    small = dataclasses.replace(paper["lora"].model, dtype="float32")
    (line,) = slow_on_cpu((), kinds_of([tiny, dataclasses.replace(paper["lora"], model=small)]))
    assert "LLaMA-3-8B (8030M parameters)" in line
    assert list(slow_on_cpu((gpu(80),), kinds_of([paper["lora"]]))) == []
    assert list(slow_on_cpu((), kinds_of([tiny, paper["base"]]))) == []


def test_workers_share_the_gpus_and_their_memory(paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduction.running.table.gpus", lambda: (gpu(80),))
    capped = dataclasses.replace(paper["lora"], launch=Launch(memory_gb=40.0))
    for cell, sharing, expected in (
        (paper["lora"], 4, 20.0), (paper["lora"], 1, None), (capped, 2, 20.0), (capped, 1, 40.0),
    ):  # fmt: skip
        assert on_part_of_a_gpu(cell, sharing).launch == Launch(memory_gb=expected)
    for workers, waiting, gpus, expected in ((4, 9, 1, 4), (4, 1, 1, 1), (3, 9, 2, 2)):
        assert workers_per_gpu(workers, waiting=waiting, gpus=gpus) == expected
    for found, workers in (((), 1), ((gpu(16),), 1), ((gpu(47),), 1), ((gpu(48),), 2), ((gpu(150), gpu(150)), 12)):
        monkeypatch.setattr("reproduction.running.table.visible_gpus", lambda found=found: len(found))
        monkeypatch.setattr("reproduction.running.table.gpus", lambda found=found: found)
        assert as_many_as_fit() == workers
