"""Whether the methods fit their bases, and what each sort of cell takes of a GPU's memory."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence

from reproduction.cells.cell import Cell
from reproduction.cells.sizes import Kind, kinds_of, sort_of


def misfits(kinds: Sequence[Kind]) -> Iterable[str]:
    """Methods whose sizes (rank, clusters, …) the base's layers cannot serve, and batches that cannot be shared.

    Each method was put on the base's shape, on the meta device, by the code that trains it: what that would refuse
    after the cells before it have run for hours is refused now.
    """
    for kind in kinds:
        titles = ", ".join(dict.fromkeys(cell.title for cell in kind.cells))
        if kind.refusal is not None:
            yield f"a fit: {titles} cannot be trained on {kind.first.model.label}: {kind.refusal}"
        elif kind.trains:
            try:
                kind.first.train.division(kind.first.launch.processes)
            except ValueError as error:
                yield f"a batch: {titles}: {error}"


def estimate_lines(cells: Sequence[Cell]) -> list[str]:
    """What each sort of cell takes of a GPU, the largest of it, the most first, as it is launched here.

    Leaves out bases whose shape is not known here, and kinds that cannot be trained as they are, which `misfits` tells.
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
        lines.append(f"  {kind.title} ({how}), {counts[sort]} cells: {memory}")
    return ["memory of a GPU at the peak, estimated:", *lines] if lines else []
