"""List the cells of tables: the tables that use each cell, its state, its seconds, what is missing.

python scripts/list.py table=all scale=tiny
"""

from rich.console import Console

from reproduction.commands.listing import show, standings
from reproduction.commands.script import hydra_command
from reproduction.commands.tables import plan_config


@hydra_command("report")
def main(config):
    planned = plan_config(config, gpus=0)
    show(standings([(request.table, list(plan.cells.values())) for request, plan in planned]), Console())


if __name__ == "__main__":
    main()
