"""All figures of the project: drawn from CSV files of counts, tables and tests; saved as PNG, PDF and page SVG."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from reproduction.report.figures.costs import figure3
from reproduction.report.figures.counts import figure1c
from reproduction.report.figures.differences import differences
from reproduction.report.figures.rates import has_rates, rates_figure, write_rate_tables
from reproduction.report.figures.sources import Absent, Rows, Sources, number
from reproduction.report.figures.style import Plate
from reproduction.report.figures.sweeps import clusters, figure4
from reproduction.report.figures.worth import worth_figure, write_worth_tables

DIFFERENCES = ("table1", "table2", "table3", "table_controls", "table_longer")
"""Tables drawn as the difference of each method from the reference."""

FIGURES: dict[str, Callable[[Sources], Plate]] = {
    "figure1": figure1c,
    "figure3": figure3,
    "figure4": figure4,
    **{table: partial(differences, table=table) for table in DIFFERENCES},
    "table8": clusters,
    "rates": rates_figure,
    "worth": worth_figure,
}
"""Figure name on the command line → function that makes it."""

TABLES: dict[str, Callable[[Sources], list[Path]]] = {
    "rates": write_rate_tables,
    "worth": write_worth_tables,
}
"""Figure name → function that writes the table of the same numbers."""


def folder_of(name: str, sources: Sources) -> Path:
    """Return the folder of a figure: the scale's results, or the folder of its data."""
    elsewhere = {"figure1": sources.results / "counts", "figure3": sources.results / sources.benchmark}
    return elsewhere.get(name, sources.own) / "figures"


def figures_of(sources: Sources) -> list[str]:
    """Return the figures of a scale: all but those of tables without a cell there."""
    return [name for name in FIGURES if name not in DIFFERENCES or sources.has(name)]


def draw_figures(sources: Sources, name: str = "all") -> tuple[list[Path], list[Absent]]:
    """Save one figure, or all of the scale, with their tables; returns the written paths and the absent figures.

    Raises ValueError for an unknown figure, `GridError` for one whose table has no cell at the scale.
    """
    if name != "all" and name not in FIGURES:
        raise ValueError(f"there is no figure={name}; the figures are {', '.join(FIGURES)}, or all")
    written, absent = [], []
    for each in figures_of(sources) if name == "all" else [name]:
        try:
            written += FIGURES[each](sources).save(folder_of(each, sources))
            written += TABLES[each](sources) if each in TABLES else []
        except Absent as error:
            absent.append(error)
    return written, absent


__all__ = [
    "FIGURES",
    "Absent",
    "Plate",
    "Rows",
    "Sources",
    "differences",
    "draw_figures",
    "figures_of",
    "folder_of",
    "has_rates",
    "number",
]
