"""Check whether this machine can run tables: everything that is missing, and what each kind of cell takes of a GPU.

    python scripts/check.py scale=paper table=table2 allow_code_execution=true

Downloads nothing, and takes seconds whatever the network does. Exit code 1 where something is missing.
"""

import hydra
from omegaconf import DictConfig

from reproduction.cells.cell import distinct, unfinished_and_damaged
from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import NotComplete, command
from reproduction.commands.tables import Request, chosen_cells, plan_all
from reproduction.preflight import estimates, missing


@hydra.main(version_base="1.3", config_path="../configs", config_name="check")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    planned = plan_all(Request.from_config(values))
    cells = distinct(cell for cells in chosen_cells(planned, values).values() for cell in cells)
    waiting, damaged = unfinished_and_damaged(cells)
    print("\n".join(estimates(waiting)))
    lacks = [*missing(waiting, results_dir=planned[0][0].results_dir), *damaged.values()]
    if lacks:
        listed = "\n".join(f"  {number}. {lack}" for number, lack in enumerate(lacks, start=1))
        raise NotComplete(
            f"{len(waiting) + len(damaged)} of {len(cells)} cells are not finished; missing for them here:\n{listed}"
        )
    print(f"nothing is missing: {len(waiting)} cells can run, {len(cells) - len(waiting)} are finished")


if __name__ == "__main__":
    register_resolvers()
    main()
