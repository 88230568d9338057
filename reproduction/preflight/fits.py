"""Checks that methods fit their bases and cells the memory, and estimates of the GPU memory of each sort of cell."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence

from reproduction.cells.cell import Cell
from reproduction.cells.sizes import Kind, kinds_of, sort_of
from reproduction.running.memory import Gpu, fitted, room_on

SLOW = 50_000_000
"""Parameter count above which a training step takes seconds on a CPU."""


def misfits(kinds: Sequence[Kind]) -> Iterable[str]:
    """Yield methods whose sizes (rank, clusters, …) do not fit the base's layers, and batches that cannot be shared."""
    for kind in kinds:
        titles = ", ".join(dict.fromkeys(cell.title for cell in kind.cells))
        if kind.refusal is not None:
            yield f"a fit: {titles} cannot be trained on {kind.first.model.label}: {kind.refusal}"
        elif kind.trains:
            try:
                kind.first.train.division(kind.first.launch.processes)
            except ValueError as error:
                yield f"a batch: {titles}: {error}"


def memory_lacks(found: Sequence[Gpu], kinds: Sequence[Kind]) -> Iterable[str]:
    """Yield kinds of cells that do not fit the smallest GPU (without GPUs: this machine's memory), largest first."""
    import psutil

    place = min(found, key=lambda gpu: gpu.memory).name if found else "this machine"
    lacks: list[tuple[int, str]] = []
    for kind in kinds:
        if kind.body is None or (not found and kind.first.model.dtype != "float32"):
            continue
        room = room_on(found, kind.first) if found else psutil.virtual_memory().total
        lacks += _kind_lacks(kind, room=room, place=f"{place} has {room / 1e9:.1f} GB", on_gpu=bool(found))
    yield from (line for _, line in sorted(lacks, key=lambda each: -each[0]))


def _kind_lacks(kind: Kind, *, room: int, place: str, on_gpu: bool) -> Iterable[tuple[int, str]]:
    from reproduction.training.memory import stage

    cell, sharded = kind.first, stage(kind.first.train)
    if kind.trains and cell.method.kind == "full" and cell.model.dtype != "float32" and not sharded:
        yield (
            room,
            (
                f"launch: {kind.title} trains every weight in {cell.model.dtype}, which needs DeepSpeed's float32 "
                "copies: give launch=zero3 (launch=auto takes it where two GPUs are visible), or model.dtype=float32"
            ),
        )
        return
    try:
        unfit = kind.trains and kind.fitting(room) is None
    except ValueError:
        return  # `misfits` reports that the batch cannot be shared
    if unfit:
        (least,) = kinds_of([fitted(cell, room)])
        needed, ways = least.training(1), ["a lower data.max_length"]
        schedule = "train.micro_batch_size=1" + " and gradient checkpointing" * bool(needed.checkpoints)
        if on_gpu and sharded < 3:
            ways.append("launch=zero3 (which shares the weights among the GPUs)")
        if on_gpu:
            ways.append("more GPUs" if sharded else "a GPU with more memory")
        yield (
            needed.total,
            (
                f"memory: training {kind.title} takes {needed} on each of {cell.launch.processes}, with "
                f"{schedule}, and {place}: {' or '.join(ways)}"
            ),
        )
    if (needed := kind.inference()).total > room:
        way = f"lower eval_batch_size (now {cell.batch_size})" if cell.batch_size else "a GPU with more memory"
        yield needed.total, f"memory: evaluating {kind.title} takes {needed}, and {place}: {way}"


def estimate_lines(cells: Sequence[Cell]) -> list[str]:
    """Return the GPU memory of the largest cell of each sort in this machine's launch, largest first.

    Bases of unknown shape and cells that cannot be trained, which `misfits` names, are left out.
    """
    largest = {}
    for kind in kinds_of(cells):
        with contextlib.suppress(ValueError):
            if kind.body is not None:
                memory, sort = kind.training() if kind.trains else kind.inference(), sort_of(kind.first)
                largest[sort] = max(largest.get(sort, (memory, kind)), (memory, kind), key=lambda each: each[0].total)
    counts, lines = Counter(sort_of(cell) for cell in cells), []
    for sort, (memory, kind) in sorted(largest.items(), key=lambda each: -each[1][0].total):
        cell = kind.first
        how = f"{memory.micro_batch} answers at once"
        if kind.trains:
            how = f"{cell.launch.processes} × {memory.micro_batch} rows of {cell.data.max_length}, {cell.launch.mode}"
        lines.append(f"  {kind.title} ({how}), {counts[sort]} cell{'s' * (counts[sort] > 1)}: {memory}")
    return ["memory of a GPU at the peak, estimated:", *lines] if lines else []


def slow_on_cpu(found: Sequence[Gpu], kinds: Sequence[Kind]) -> Iterable[str]:
    """Yield a line on the largest base trained without a GPU if it has `SLOW` parameters or more."""
    sizes = {kind.body.parameters: kind.first.model.label for kind in kinds if kind.body is not None and kind.trains}
    if not found and sizes and max(sizes) >= SLOW:
        yield f"No GPU is visible: {sizes[max(sizes)]} ({max(sizes) / 1e6:.0f}M parameters) trains on the CPU, slowly."
