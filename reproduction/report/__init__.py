"""Records → everything a person reads: metrics.csv, significance, tables. Runs where torch cannot be imported."""

from reproduction.report.cells import Missing, gather
from reproduction.report.collect import collect_metrics
from reproduction.report.grid import Grid, GridError, load_grid
from reproduction.report.render import latex, markdown, write_table
from reproduction.report.statistics import summary, write_significance
from reproduction.report.sweeps import write_sweep
from reproduction.report.tables import Table, build_table, lay_out
from reproduction.report.terminal import console

__all__ = [
    "Grid",
    "GridError",
    "Missing",
    "Table",
    "build_table",
    "collect_metrics",
    "console",
    "gather",
    "latex",
    "lay_out",
    "load_grid",
    "markdown",
    "summary",
    "write_significance",
    "write_sweep",
    "write_table",
]
