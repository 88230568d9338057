"""Fill a table: train and evaluate every cell that is not finished, test for significance, print the table.

    python scripts/table.py table=table1 scale=tiny allow_code_execution=true

Stop it at any moment; the same command goes on, and a finished cell is never run again.
"""

import sys

import hydra
from omegaconf import DictConfig

from idlora.pipeline.compose import plain, register_resolvers
from idlora.pipeline.preflight import require
from idlora.pipeline.request import Request, report_statistics, report_table
from idlora.pipeline.shell import command
from idlora.pipeline.table import fill


@hydra.main(version_base="1.3", config_path="../configs", config_name="table")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    request = Request.from_config(values)
    plan = request.plan()
    chosen = plan.restricted(experiments=values["experiments"], methods=values["methods"])
    require(chosen.values(), scale=request.scale, results_dir=request.results_dir)
    outcome = fill(chosen, folder=request.results)
    if outcome.computed:
        print(f"{outcome.computed} cells in {outcome.seconds / 60:.1f} minutes")
    report_statistics(request, plan, quiet=True)
    try:
        report_table(request, plan)
    finally:
        for key, reason in outcome.failed.items():
            print(f"failed: {'/'.join(map(str, key))}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    register_resolvers()
    main()
