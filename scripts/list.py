"""List the cells of tables: which tables each serves, its state, the seconds it took, what is missing.

python scripts/list.py table=all scale=tiny
"""

import hydra
from omegaconf import DictConfig
from rich.console import Console

from idlora.pipeline.compose import plain
from idlora.pipeline.listing import show, standings
from idlora.pipeline.request import Request
from idlora.pipeline.resolvers import register_resolvers
from idlora.pipeline.shell import command


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
@command
def main(config: DictConfig) -> None:
    requests = Request.from_config(plain(config))
    show(standings([(request.table, list(request.plan().cells.values())) for request in requests]), Console())


if __name__ == "__main__":
    register_resolvers()
    main()
