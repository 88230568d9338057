"""List the cells of tables: which tables each serves, its state, the seconds it took, what is missing.

python scripts/list.py table=all scale=tiny
"""

import hydra
from omegaconf import DictConfig
from rich.console import Console

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.listing import show, standings
from reproduction.commands.tables import Request, plan_all


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
@command
def main(config: DictConfig) -> None:
    planned = plan_all(Request.from_config(plain(config)), gpus=0)
    show(standings([(request.table, list(plan.cells.values())) for request, plan in planned]), Console())


if __name__ == "__main__":
    register_resolvers()
    main()
