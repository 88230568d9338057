"""Print what pivots a base gives to ID-LoRA, and what a finished run's router and B make of them.

    python scripts/pivots.py model=llama3_2_3b scale=tiny
    python scripts/pivots.py model=llama3_2_3b scale=tiny method=idlora_k2
    python scripts/pivots.py model.name=mine model.path_or_id=./folder scale=tiny
    python scripts/pivots.py run=results/tiny/runs/<name>

A module of a base of billions of parameters can take minutes:
method.arguments.layers_to_transform=[0,16] looks at two layers.
"""

from reproduction.commands.pivots import Inspection, report_pivots
from reproduction.commands.script import hydra_command


@hydra_command("pivots")
def main(config):
    report_pivots(Inspection.from_config(config))


if __name__ == "__main__":
    main()
