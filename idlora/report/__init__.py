"""Records → everything a person reads: metrics.csv, significance, tables. Runs where torch cannot be imported."""

from idlora.report.cells import Missing, gather
from idlora.report.collect import collect_metrics
from idlora.report.grid import Grid, GridError, load_grid
from idlora.report.render import latex, markdown, write_table
from idlora.report.statistics import summary, write_significance
from idlora.report.sweeps import write_sweep
from idlora.report.tables import Table, build_table, lay_out
from idlora.report.terminal import console

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
