"""Plan tables: cells, device-hours of training and evaluation, disk and downloads.

    python scripts/plan.py scale=paper table=table2 allow_code_execution=true
    python scripts/plan.py scale=paper probe=none
    python scripts/plan.py scale=paper gpus=2 memory_gb=80 allow_code_execution=true

Hours come from a few steps and answers of one cell of each base and method on this machine, with
random weights (kept in results/<scale>/probe.json), or with gpus= from measurements in results/.
"""

from rich.console import Console

from reproduction.commands.script import hydra_command
from reproduction.commands.tables import chosen_cells, plan_config
from reproduction.preflight.machine import such_gpus
from reproduction.preflight.measurements import measured_here
from reproduction.preflight.plan import answer, disk_lines, show, show_probed, sources, table_hours, unmeasured
from reproduction.preflight.probe import ProbedSpeeds, probes


@hydra_command("plan")
def main(config):
    if config.gpus is not None:
        such_gpus(config.gpus, config.memory_gb)
    planned = plan_config(config, gpus=config.gpus)
    tables, request = chosen_cells(planned, config), planned[0][0]
    cells = [cell for each in tables.values() for cell in each]
    if config.gpus is None:
        figures = probes(cells, results=request.results, mode=config.probe)
        show_probed(table_hours(tables, ProbedSpeeds(figures)), Console())
        lines = unmeasured(cells, figures)
    else:
        speeds = measured_here(config.measured, gpus=config.gpus, memory_gb=config.memory_gb)
        hours = table_hours(tables, speeds)
        show(hours, Console(), device="GPU", devices=speeds.gpus)
        lines = [answer(hours, gpus=config.gpus, memory_gb=config.memory_gb), *sources(cells, speeds)]
    print("\n".join([*lines, *disk_lines(cells, results_dir=request.results_dir, here=config.gpus is None)]))


if __name__ == "__main__":
    main()
