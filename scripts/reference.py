"""Make the committed reference of a scale: fill what its tables lack, pack the records, and build all from these.

    python scripts/reference.py scale=tiny workers=8 allow_code_execution=true

Runs lie in results/<scale>/runs as those of any table; results/reference/<scale> is written once every cell is there.
scripts/rebuild.py makes the same again from the committed records alone.
"""

import sys

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import NotComplete, command
from reproduction.commands.reference import keep_reference, reference_requests
from reproduction.commands.tables import plan_all
from reproduction.preflight import require
from reproduction.running.table import fill


@hydra.main(version_base="1.3", config_path="../configs", config_name="reference")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    planned = plan_all(reference_requests(values))
    cells = [cell for _, plan in planned for cell in plan.cells.values()]
    request = planned[0][0]
    require(cells, scale=request.scale, results_dir=request.results_dir)
    outcome = fill(cells, folder=request.results, workers=values["workers"])
    for title, reason in outcome.failed.items():
        print(f"failed: {title}: {reason}", file=sys.stderr)
    if outcome.failed:
        raise NotComplete(f"{len(outcome.failed)} cells failed, and nothing was written; the same command goes on")
    print(f"written: {keep_reference(planned)}")


if __name__ == "__main__":
    register_resolvers()
    main()
