"""Print what pivots a base gives to ID-LoRA and, of a finished run, what its router and B make of them.

python scripts/pivots.py model=llama3_2_3b scale=tiny
python scripts/pivots.py run=results/tiny/runs/<name>

Writes results/<scale>/pivots.csv, where the rows of other bases and runs stay.
"""

import hydra
from omegaconf import DictConfig

from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.pivots import Inspection, report_pivots


@hydra.main(version_base="1.3", config_path="../configs", config_name="pivots")
@command
def main(config: DictConfig) -> None:
    report_pivots(Inspection.from_config(config))


if __name__ == "__main__":
    register_resolvers()
    main()
