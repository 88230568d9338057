"""The GPUs visible to this process, and micro-batches of a cell that fit the free memory."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reproduction.cells.cell import Cell
from reproduction.cells.sizes import kinds_of
from reproduction.training import launching

if TYPE_CHECKING:
    from reproduction.training.batches import Packing

A800_GB = 80
LEAST = {"micro_batch_size": 1, "gradient_checkpointing": True}
UNKNOWN = {"micro_batch_size": 4, "gradient_checkpointing": True}
"""Values of "auto" if nothing fits, and if the memory cannot be estimated."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One visible CUDA device: its memory in bytes and compute capability."""

    name: str
    memory: int
    capability: tuple[int, int]


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """Return the visible CUDA devices that PyTorch can use."""
    import torch

    if not torch.cuda.is_available():  # device_count asks NVML, which includes GPUs with a too old driver
        return ()
    found = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return tuple(Gpu(name=each.name, memory=each.total_memory, capability=(each.major, each.minor)) for each in found)


def room_on(found: Sequence[Gpu], cell: Cell) -> int:
    """Return the bytes of the smallest GPU that a cell's launch lets each process use."""
    memory = min(gpu.memory for gpu in found)
    return memory if cell.launch.memory_gb is None else min(memory, int(cell.launch.memory_gb * 1e9))


def fitted(cell: Cell, room: int, *, packing: "Packing | None" = None) -> Cell:
    """Return the cell with `train.micro_batch_size` and `train.gradient_checkpointing` that fit `room` bytes.

    The effective batch does not change. A cell whose processes cannot share the batch is returned unchanged.
    """
    if cell.method.kind == "none":
        return cell
    (kind,) = kinds_of([cell])
    try:
        train = None if kind.body is None else kind.fitting(room, packing=packing)
    except ValueError:
        return cell
    if train is None:
        instead = UNKNOWN if kind.body is None else LEAST
        train = replace(cell.train, **{key: instead[key] for key in instead if getattr(cell.train, key) == "auto"})
    return replace(cell, train=train)


def fitted_now(cell: Cell, *, packing: "Packing | None" = None) -> Cell:
    """Apply `fitted` to this process's free memory: on its GPU within its launch's limit, else the machine's memory.

    All processes of a launch use the schedule of the one with the least memory. Without a GPU, a cell whose settings
    are fixed is returned unchanged.
    """
    import psutil
    import torch

    if gpus():
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        return fitted(cell, launching.min_over_ranks(min(room_on(gpus(), cell), free)), packing=packing)
    if "auto" not in (cell.train.micro_batch_size, cell.train.gradient_checkpointing):
        return cell
    return fitted(
        cell, launching.min_over_ranks(psutil.virtual_memory().available // cell.launch.processes), packing=packing
    )


def fitted_to_the_papers(cell: Cell) -> Cell:
    """Apply `fitted` to this machine's GPUs, or without GPUs to the paper's, an A800."""
    return fitted(cell, room_on(gpus(), cell) if gpus() else int(1e9 * (cell.launch.memory_gb or A800_GB)))


def estimated_bytes(cell: Cell, *, packing: "Packing | None" = None) -> int | None:
    """Return the estimated bytes that training the cell allocates on each GPU; None if unknown."""
    (kind,) = kinds_of([cell])
    return None if kind.body is None else kind.training(packing=packing).allocated
