"""Test every method of a table against the table's reference, paired by item, and print the tests.

    python scripts/stats.py table=table1 scale=tiny

Wilcoxon signed-rank as in the paper, exact McNemar beside it for right-or-wrong items, Holm over the family.
"""

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.tables import Request, plan_all, report_statistics


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
@command
def main(config: DictConfig) -> None:
    report_statistics(plan_all(Request.from_config(plain(config)), gpus=0))


if __name__ == "__main__":
    register_resolvers()
    main()
