"""Fill tables: train and evaluate every unfinished cell, test for significance, print the tables.

    python scripts/table.py table=table1 scale=tiny allow_code_execution=true
    python scripts/table.py table=all scale=tiny workers=16 allow_code_execution=true

Stop it at any moment: the same command goes on, and a finished cell is never run again.
"""

import sys

from reproduction.cli import NotComplete
from reproduction.commands.script import hydra_command
from reproduction.commands.tables import chosen_cells, plan_config, report_tables
from reproduction.preflight import require
from reproduction.running.table import fill


@hydra_command("table")
def main(config):
    planned = plan_config(config)
    chosen = [cell for cells in chosen_cells(planned, config).values() for cell in cells]
    request = planned[0][0]
    require(chosen, scale=request.scale, results_dir=request.results_dir)
    outcome = fill(chosen, folder=request.results, workers=config.workers)
    if outcome.computed:
        print(f"{outcome.computed} cells in {outcome.seconds / 60:.1f} minutes")
    for title, reason in outcome.failed.items():
        print(f"failed: {title}: {reason}", file=sys.stderr)
    report_tables(planned)
    if outcome.failed:
        raise NotComplete(f"{len(outcome.failed)} cells failed; the same command tries them again")


if __name__ == "__main__":
    main()
