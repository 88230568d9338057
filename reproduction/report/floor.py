"""The columns on which no method is called ahead: the interval of a trained method reaches down to chance, or to zero.

Strict on purpose: one such method is enough, since its score may be luck, and so may be any lead over it. The untuned
base does not count, since a task that it cannot do is what there is to learn.
"""

from reproduction.report.cells import Cell, Filled
from reproduction.report.grid import UNTUNED, Column

CHANCE, ZERO = "chance", "zero"
SIGN = "°"
"""Stands behind the interval of a value that may be luck."""


def at_floor(cell: Cell) -> str:
    """`CHANCE` or `ZERO` where the cell's interval, as it is printed, holds it or lies below it; else empty."""
    floor, printed = cell.column.floor, cell.measure.printed
    if floor is None or printed(cell.interval[0]) > printed(floor):
        return ""
    return CHANCE if floor else ZERO


def floor_of(filled: Filled, base: str, column: Column) -> str:
    """`CHANCE` or `ZERO` where that is so of any trained method of a base on this column; else empty."""
    cells = (filled.cells.get((base, method, column.id)) for method in filled.grid.methods if method != UNTUNED)
    return next(filter(None, (at_floor(cell) for cell in cells if cell is not None)), "")
