"""Fill tables: train and evaluate every cell that is not finished, test for significance, print the tables.

    python scripts/table.py table=table1 scale=tiny allow_code_execution=true
    python scripts/table.py table=all scale=tiny allow_code_execution=true

Stop it at any moment; the same command goes on, and a finished cell is never run again, whichever table had it run.
"""

import sys

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import NotComplete, command
from reproduction.commands.tables import Request, chosen_cells, report_tables
from reproduction.preflight import require
from reproduction.running.table import fill


@hydra.main(version_base="1.3", config_path="../configs", config_name="table")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    planned = [(request, request.plan()) for request in Request.from_config(values)]
    chosen = [cell for cells in chosen_cells(planned, values).values() for cell in cells]
    request = planned[0][0]
    require(chosen, scale=request.scale, results_dir=request.results_dir)
    outcome = fill(chosen, folder=request.results, workers=values["workers"])
    if outcome.computed:
        print(f"{outcome.computed} cells in {outcome.seconds / 60:.1f} minutes")
    try:
        report_tables(planned)
    finally:
        for title, reason in outcome.failed.items():
            print(f"failed: {title}: {reason}", file=sys.stderr)
    if outcome.failed:
        raise NotComplete(f"{len(outcome.failed)} cells failed; the same command tries them again")


if __name__ == "__main__":
    register_resolvers()
    main()
