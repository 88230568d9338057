"""Plan tables: how many cells, how many device-hours of training and evaluation, how much disk and how many downloads.

    python scripts/plan.py scale=paper table=table2 allow_code_execution=true

    python scripts/plan.py scale=paper gpus=2 memory_gb=80 allow_code_execution=true

The hours are projected from a short probe on this machine, whose figures are kept (probe=fresh measures again); with
gpus= from the measurements in results/<device>, for GPUs that need not be here.
"""

import hydra
from omegaconf import DictConfig
from rich.console import Console

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.tables import Request, chosen_cells, plan_all
from reproduction.preflight.measurements import measured_here
from reproduction.preflight.plan import disk_lines, show, show_probed, sources, table_hours, unmeasured
from reproduction.preflight.probe import ProbedSpeeds, probes


@hydra.main(version_base="1.3", config_path="../configs", config_name="plan")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    planned = plan_all(Request.from_config(values))
    tables, request = chosen_cells(planned, values), planned[0][0]
    cells = [cell for each in tables.values() for cell in each]
    if values["gpus"] is None:
        figures = probes(cells, results=request.results, mode=values["probe"])
        show_probed(table_hours(tables, ProbedSpeeds(figures)), Console())
        lines = unmeasured(cells, figures)
    else:
        speeds = measured_here(values["measured"], gpus=values["gpus"], memory_gb=values["memory_gb"])
        show(table_hours(tables, speeds), Console(), device="GPU", devices=speeds.gpus)
        lines = sources(cells, speeds)
    print("\n".join([*lines, *disk_lines(cells, results_dir=request.results_dir)]))


if __name__ == "__main__":
    register_resolvers()
    main()
