"""Columns on which no method is called ahead: a trained method's interval reaches down to chance, or to zero.

One such method is enough, since its score may be luck, and so may any lead over it. The untuned base does not count,
since training is meant to teach what it cannot do.
"""

from reproduction.report.cells import Cell, Filled
from reproduction.report.grid import UNTUNED, Column

CHANCE, ZERO = "chance", "zero"
SIGN = "°"
"""Mark behind the interval of a value that may be luck."""


def at_floor(cell: Cell) -> str:
    """Return `CHANCE` or `ZERO` if the cell's interval, as printed, contains it or lies below it; else ""."""
    floor, printed = cell.column.floor, cell.measure.printed
    if floor is None or printed(cell.interval[0]) > printed(floor):
        return ""
    return CHANCE if floor else ZERO


def floor_of(filled: Filled, base: str, column: Column) -> str:
    """Return `CHANCE` or `ZERO` if any trained method of a base is there on this column; else ""."""
    cells = (filled.cells.get((base, method, column.id)) for method in filled.grid.methods if method != UNTUNED)
    return next(filter(None, (at_floor(cell) for cell in cells if cell is not None)), "")
