"""Print what pivots a base gives to ID-LoRA and, of a finished run, what its router and B make of them.

python scripts/pivots.py model=llama3_2_3b scale=tiny
python scripts/pivots.py run=results/tiny/runs/<name>

Writes results/<scale>/pivots.csv, where the rows of other bases and runs stay.
"""

import hydra
from omegaconf import DictConfig

from idlora.pipeline.pivots import Inspection, report_pivots
from idlora.pipeline.resolvers import register_resolvers
from idlora.pipeline.shell import command


@hydra.main(version_base="1.3", config_path="../configs", config_name="pivots")
@command
def main(config: DictConfig) -> None:
    report_pivots(Inspection.from_config(config))


if __name__ == "__main__":
    register_resolvers()
    main()
