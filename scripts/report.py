"""Rebuild a table from the finished runs and print it: Markdown, CSV and LaTeX, and the tidy metrics.csv.

    python scripts/report.py table=table1 scale=tiny

Exits 1 where a cell is missing, after printing the commands that fill it; allow_missing=true accepts gaps.
"""

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.tables import Request, plan_all, report_tables


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
@command
def main(config: DictConfig) -> None:
    report_tables(plan_all(Request.from_config(plain(config)), gpus=0))


if __name__ == "__main__":
    register_resolvers()
    main()
