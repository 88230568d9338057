"""Plan tables: how many cells, how many device-hours of training and evaluation, how much disk and how many downloads.

    python scripts/plan.py scale=paper table=table2 allow_code_execution=true

    python scripts/plan.py scale=paper gpus=2 memory_gb=80 allow_code_execution=true

The hours are projected from a short probe on this machine, whose figures are kept (probe=fresh measures again); with
gpus= from the measurements in results/<device>, for GPUs that need not be here.
"""

import hydra
from omegaconf import DictConfig
from rich.console import Console

from idlora.pipeline import projection
from idlora.pipeline.compose import plain
from idlora.pipeline.plan import disk_lines, shares, show, unmeasured
from idlora.pipeline.probe import probes
from idlora.pipeline.projection import measured_here
from idlora.pipeline.request import Request, chosen_cells, plan_all
from idlora.pipeline.resolvers import register_resolvers
from idlora.pipeline.shell import command


@hydra.main(version_base="1.3", config_path="../configs", config_name="plan")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    planned = plan_all(Request.from_config(values))
    tables, request = chosen_cells(planned, values), planned[0][0]
    cells = [cell for each in tables.values() for cell in each]
    if values["gpus"] is None:
        figures = probes(cells, results=request.results, mode=values["probe"])
        show(shares(tables, figures), Console())
        lines = unmeasured(cells, figures)
    else:
        measured = measured_here(values["measured"], gpus=values["gpus"], memory_gb=values["memory_gb"])
        found = projection.project(tables, measured)
        projection.show(found, measured, Console())
        lines = projection.sources(cells, found, measured)
    print("\n".join([*lines, *disk_lines(cells, results_dir=request.results_dir)]))


if __name__ == "__main__":
    register_resolvers()
    main()
