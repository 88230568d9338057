"""Check whether this machine can run tables: GPUs, memory, disk, access, versions, permission.

    python scripts/check.py scale=paper allow_code_execution=true
    python scripts/check.py scale=paper table=table2 allow_code_execution=true

It takes seconds and downloads nothing. Exit code 1 if anything is missing.
"""

from reproduction.cells.cell import distinct, unfinished_and_damaged
from reproduction.cli import NotComplete
from reproduction.commands.script import hydra_command
from reproduction.commands.tables import chosen_cells, plan_config
from reproduction.preflight import estimates, missing


@hydra_command("check")
def main(config):
    planned = plan_config(config)
    cells = distinct(cell for cells in chosen_cells(planned, config).values() for cell in cells)
    waiting, damaged = unfinished_and_damaged(cells)
    print("\n".join(estimates(waiting)))
    lacks = [*missing(waiting, results_dir=planned[0][0].results_dir), *damaged.values()]
    if lacks:
        listed = "\n".join(f"  {number}. {lack}" for number, lack in enumerate(lacks, start=1))
        unfinished = len(waiting) + len(damaged)
        raise NotComplete(f"{unfinished} of {len(cells)} cells are not finished; missing for them here:\n{listed}")
    print(f"nothing is missing: {len(waiting)} cells can run, {len(cells) - len(waiting)} are finished")


if __name__ == "__main__":
    main()
