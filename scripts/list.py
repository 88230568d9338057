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
from reproduction.commands.tables import Request


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
@command
def main(config: DictConfig) -> None:
    requests = Request.from_config(plain(config))
    show(standings([(request.table, list(request.plan().cells.values())) for request in requests]), Console())


if __name__ == "__main__":
    register_resolvers()
    main()
