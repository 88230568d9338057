"""How many rows a pass has and whether activations are recomputed: what the memory allows, alike in all processes."""

import dataclasses
from types import SimpleNamespace

import pytest
from made_gpus import gpu

from reproduction.cells.cell import Cell
from reproduction.cells.sizes import kinds_of
from reproduction.preflight.fits import slow_on_cpu
from reproduction.running.memory import estimated_bytes, fitted, fitted_now, fitted_to_the_papers, room_on
from reproduction.running.progress import NullProgress
from reproduction.running.table import as_many_as_fit, on_part_of_a_gpu, sharers
from reproduction.running.train import in_smaller_passes
from reproduction.training import OutOfMemory
from reproduction.training.batches import Packing
from reproduction.training.launching import Launch


def test_packed_rows_take_less_and_a_batch_that_cannot_be_shared_is_left_alone(paper: dict[str, Cell]) -> None:
    odd = dataclasses.replace(paper["lora"], launch=Launch(mode="ddp", processes=3))
    assert fitted(odd, 85 * 10**9) == odd
    lora, short = paper["lora"], Packing((100,) * 99, 512, 32, by_length=True)
    padded, packed = (fitted(lora, 45 * 10**9, packing=each).train.micro_batch_size for each in (None, short))
    assert 1 < padded < packed == 16  # five examples in a row
    narrow = Packing((100,) * 99, 192, 32, by_length=True)  # each in a row of its own
    sixteen = dataclasses.replace(lora, train=dataclasses.replace(lora.train, micro_batch_size=16))
    taken = [estimated_bytes(sixteen, packing=each) for each in (short, narrow, None)]
    assert taken == sorted(taken)
    assert taken[0] < taken[1] < taken[2]


@pytest.mark.parametrize(("free", "reserved", "cap"), [(45, 0, None), (30, 15, None), (70, 0, 45), (70, 70, 45)])
def test_a_pass_is_fitted_to_the_memory_that_is_free_and_to_a_workers_share(
    paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, cap: int | None
) -> None:
    monkeypatch.setattr("reproduction.running.memory.gpus", lambda: (gpu(80),))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free * 10**9, 80 * 10**9))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: reserved * 10**9)
    cell = dataclasses.replace(paper["lora"], launch=Launch(mode="ddp", processes=2, memory_gb=cap))
    assert fitted_now(cell) == fitted(cell, 45 * 10**9)
    assert fitted(cell, 45 * 10**9) != fitted(cell, 75 * 10**9)
    short = Packing((100,) * 99, 512, 32, by_length=True)
    assert fitted_now(cell, packing=short) == fitted(cell, 45 * 10**9, packing=short) != fitted(cell, 45 * 10**9)


def test_where_nothing_fits_what_is_auto_takes_the_least_memory(paper: dict[str, Cell], tiny: Cell) -> None:
    assert fitted(paper["lora"], 17 * 10**9).train == dataclasses.replace(
        paper["lora"].train, micro_batch_size=1, gradient_checkpointing=True
    )
    unknown = dataclasses.replace(paper["lora"].model, path_or_id="nobody/unknown", shape=None)
    cell = dataclasses.replace(paper["lora"], model=unknown)
    assert fitted(cell, 17 * 10**9).train == dataclasses.replace(
        cell.train, micro_batch_size=4, gradient_checkpointing=True
    )
    assert fitted(tiny, 10**6) == tiny  # says itself what it takes


def test_without_a_gpu_what_is_auto_is_fitted_to_the_machines_memory(
    paper: dict[str, Cell], tiny: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fitted_now(tiny) == tiny
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2 * 30 * 10**9))
    asked = dataclasses.replace(tiny.train, micro_batch_size="auto", gradient_checkpointing="auto")
    whole = fitted_now(dataclasses.replace(tiny, train=asked)).train
    assert (whole.micro_batch_size, whole.gradient_checkpointing) == (asked.batch_size, False)
    assert fitted_now(paper["lora"]) == fitted(paper["lora"], 30 * 10**9) != fitted(paper["lora"], 60 * 10**9)


@pytest.mark.parametrize(
    ("rows", "inside", "tried"),
    [(8, False, [(8, "auto"), (4, True)]), (1, False, [(1, "auto")]), (8, True, [(8, "auto")])],
)
def test_a_pass_is_halved_once_and_not_in_a_launch_that_was_joined(
    tiny: Cell, monkeypatch: pytest.MonkeyPatch, rows: int, inside: bool, tried: list
) -> None:
    asked = []

    def train(cell: Cell, progress: NullProgress) -> dict:
        asked.append((cell.train.micro_batch_size, cell.train.gradient_checkpointing))
        raise OutOfMemory("too little", asked[-1][0], True)

    monkeypatch.setattr("reproduction.running.train.launching.inside", lambda: inside)
    spec = dataclasses.replace(tiny.train, micro_batch_size=rows, gradient_checkpointing="auto")
    with pytest.raises(OutOfMemory):
        in_smaller_passes(train, dataclasses.replace(tiny, train=spec), NullProgress())
    assert asked == tried


def test_the_papers_gpu_and_this_machines_are_taken_in_their_turn(
    paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = paper["lora"]
    capped = dataclasses.replace(lora, launch=dataclasses.replace(lora.launch, memory_gb=30))
    assert fitted_to_the_papers(capped) == fitted(capped, 30 * 10**9) != fitted(capped, 80 * 10**9)
    assert room_on((gpu(40),), dataclasses.replace(lora, launch=Launch(memory_gb=60))) == 40 * 10**9
    monkeypatch.setattr("reproduction.running.memory.gpus", lambda: (gpu(45),))
    assert fitted_to_the_papers(lora) == fitted(lora, 45 * 10**9) != fitted(lora, 80 * 10**9)
    changed = dataclasses.replace(lora, train=dataclasses.replace(lora.train, gradient_checkpointing=True))
    assert len(kinds_of([lora, changed])) == 2


def test_what_the_user_fixed_stays_on_a_cpu_and_processes_agree_on_a_gpu(
    paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = paper["lora"]
    train = dataclasses.replace(lora.train, micro_batch_size=16, gradient_checkpointing=True)
    fixed = dataclasses.replace(lora, train=train)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2 * 22 * 10**9))
    assert fitted(fixed, 22 * 10**9) != fixed
    assert fitted_now(fixed) == fixed
    monkeypatch.setattr("reproduction.running.memory.gpus", lambda: (gpu(80),))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (60 * 10**9, 80 * 10**9))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 0)
    monkeypatch.setattr("reproduction.running.memory.launching.min_over_ranks", lambda value: min(value, 30 * 10**9))
    assert fitted_now(lora) == fitted(lora, 30 * 10**9)


def test_a_real_model_on_the_cpu_is_told_to_be_slow_and_a_small_one_is_not(paper: dict[str, Cell], tiny: Cell) -> None:
    small = dataclasses.replace(paper["lora"].model, dtype="float32")
    (line,) = slow_on_cpu((), kinds_of([tiny, dataclasses.replace(paper["lora"], model=small)]))
    assert line == "No GPU is visible: LLaMA-3-8B (8030M parameters) trains on the CPU, slowly."
    assert list(slow_on_cpu((gpu(80),), kinds_of([paper["lora"]]))) == []
    assert list(slow_on_cpu((), kinds_of([tiny, paper["base"]]))) == []


def test_workers_share_the_memory_of_their_gpu(paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduction.running.table.gpus", lambda: (gpu(80),))
    assert on_part_of_a_gpu(paper["lora"], 4).launch == Launch(memory_gb=20.0)
    assert on_part_of_a_gpu(paper["lora"], 1).launch == Launch()
    capped = dataclasses.replace(paper["lora"], launch=Launch(memory_gb=40.0))
    assert on_part_of_a_gpu(capped, 2).launch == Launch(memory_gb=20.0)
    assert on_part_of_a_gpu(capped, 1).launch == Launch(memory_gb=40.0)
    shared = [
        sharers(workers, waiting=waiting, gpus=gpus) for workers, waiting, gpus in ((4, 9, 1), (4, 1, 1), (3, 9, 2))
    ]
    assert shared == [4, 1, 2]


def test_as_many_cells_go_side_by_side_as_have_24_gb_of_a_gpu_each_and_one_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for found, workers in (((), 1), ((gpu(16),), 1), ((gpu(47),), 1), ((gpu(48),), 2), ((gpu(150), gpu(150)), 12)):
        monkeypatch.setattr("reproduction.running.table.visible_gpus", lambda found=found: len(found))
        monkeypatch.setattr("reproduction.running.table.gpus", lambda found=found: found)
        assert as_many_as_fit() == workers
