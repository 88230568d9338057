"""Make the committed reference of a scale: run missing cells, pack their records, build from these.

    python scripts/reference.py scale=tiny workers=8 allow_code_execution=true

Stop it at any moment: the same command goes on, and nothing is written before all cells are done.
"""

import sys

from reproduction.cells.compose import plain
from reproduction.cli import NotComplete
from reproduction.commands.reference import keep_reference, reference_requests
from reproduction.commands.script import hydra_command
from reproduction.commands.tables import plan_all
from reproduction.preflight import require
from reproduction.running.table import fill


@hydra_command("reference")
def main(config):
    planned = plan_all(reference_requests(plain(config)))
    cells = [cell for _, plan in planned for cell in plan.cells.values()]
    request = planned[0][0]
    require(cells, scale=request.scale, results_dir=request.results_dir)
    outcome = fill(cells, folder=request.results, workers=config.workers)
    for title, reason in outcome.failed.items():
        print(f"failed: {title}: {reason}", file=sys.stderr)
    if outcome.failed:
        raise NotComplete(f"{len(outcome.failed)} cells failed, and nothing was written; the same command goes on")
    print(f"written: {keep_reference(planned)}")


if __name__ == "__main__":
    main()
