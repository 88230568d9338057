"""Check whether this machine can run tables: GPUs, memory, disk, access, versions, permission.

    python scripts/check.py scale=paper allow_code_execution=true
    python scripts/check.py scale=paper table=table2 allow_code_execution=true
    python scripts/check.py scale=paper gpus=2 memory_gb=80      # a machine that is not this one

It downloads nothing. Exit code 1 if anything is missing.
"""

from reproduction.cells.cell import distinct, unfinished_and_damaged
from reproduction.cli import NotComplete
from reproduction.commands.script import hydra_command
from reproduction.commands.tables import chosen_cells, plan_config
from reproduction.preflight import estimates, listed, missing, missing_elsewhere, not_checked
from reproduction.preflight.machine import called, such_gpus


@hydra_command("check")
def main(config):
    elsewhere = () if config.gpus is None else such_gpus(config.gpus, config.memory_gb)
    planned = plan_config(config, gpus=config.gpus)
    cells = distinct(cell for cells in chosen_cells(planned, config).values() for cell in cells)
    waiting, damaged = unfinished_and_damaged(cells)
    print("\n".join(estimates(waiting, elsewhere)))
    if elsewhere:
        print("\n".join(not_checked(waiting, results_dir=planned[0][0].results_dir)))
        machine = called(config.gpus, config.memory_gb)
        if lacks := missing_elsewhere(waiting, elsewhere):
            raise NotComplete(f"{machine} would not do for all of {len(waiting)} cells:{listed(lacks)}")
        print(f"{machine} would do for {len(waiting)} cells ({len(cells) - len(waiting)} are finished here)")
        return
    lacks = [*missing(waiting, results_dir=planned[0][0].results_dir), *damaged.values()]
    if lacks:
        unfinished = len(waiting) + len(damaged)
        raise NotComplete(f"{unfinished} of {len(cells)} cells are not finished; missing for them here:{listed(lacks)}")
    print(f"nothing is missing: {len(waiting)} cells can run, {len(cells) - len(waiting)} are finished")


if __name__ == "__main__":
    main()
