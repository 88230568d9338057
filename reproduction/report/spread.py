"""What a column can tell apart: how far seeds of one method lie from each other, and how far methods do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reproduction.report.cells import Cell, Filled
from reproduction.report.grid import UNTUNED, Column


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One column on one base, in the unit in which scores and losses are stored.

    Attributes:
        seeds: standard deviation (n - 1) over the seeds, pooled over the methods: the root of the mean variance.
        methods: standard deviation (n - 1) of the methods' means, the untuned base left out.
    """

    base: str
    column: Column
    seeds: float
    methods: float

    @property
    def ratio(self) -> float | None:
        """Between methods over between seeds; None where no seed differs."""
        return self.methods / self.seeds if self.seeds else None


def spreads(filled: Filled) -> list[Spread]:
    """Every column with at least two methods that have several seeds; none where the table has one seed."""
    found = []
    for base in filled.grid.bases:
        for column in filled.columns:
            methods = [method for method in filled.grid.methods if method != UNTUNED]
            cells = [cell for method in methods if (cell := filled.cells.get((base, method, column.id))) is not None]
            if len(cells) > 1 and all(cell.seeds > 1 for cell in cells):
                found.append(_spread(base, column, cells))
    return found


def _spread(base: str, column: Column, cells: Sequence[Cell]) -> Spread:
    seeds = float(np.sqrt(np.mean([cell.spread**2 for cell in cells])))
    return Spread(base=base, column=column, seeds=seeds, methods=float(np.std([c.mean for c in cells], ddof=1)))
