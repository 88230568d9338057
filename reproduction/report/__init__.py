"""Reports made from run records. This package never imports torch.

The path of a model's answer to a table:

answers.jsonl     evals/answering.py: answer           raw text, or log-probabilities, in the run's folder
items.jsonl       evals/scoring.py: score              parsed and scored by the benchmark, evals/tasks/<name>.py
values of cells   cells.py: gather                     from the runs in the table's grid; scores.py reads the items
a table           tables.py: lay_out                   means, best values; significance.py: tests and †
its files         render.py: write_table               results/<scale>/tables/<table>.md, .csv, .tex, best in bold
the tests         statistics.py: write_significance    results/<scale>/significance/<table>.csv
metrics.csv       collect.py: metric_rows              results/<scale>/metrics.csv, a row for each score
"""

from reproduction.report.cells import Missing, gather
from reproduction.report.collect import collect_metrics
from reproduction.report.grid import Grid, GridError, load_grid
from reproduction.report.render import latex, markdown, print_table, write_table
from reproduction.report.statistics import summary, write_significance
from reproduction.report.sweeps import write_sweep
from reproduction.report.tables import Table, lay_out

__all__ = [
    "Grid",
    "GridError",
    "Missing",
    "Table",
    "collect_metrics",
    "gather",
    "latex",
    "lay_out",
    "load_grid",
    "markdown",
    "print_table",
    "summary",
    "write_significance",
    "write_sweep",
    "write_table",
]
