"""Measure what explains the methods' best learning rates, where their trainings start.

    python scripts/sharpness.py experiment=multitask_llama3_2_3b scale=tiny
    python scripts/sharpness.py experiment=multitask_llama3_2_3b scale=tiny methods=[lora,idlora]

Writes results/<scale>/sharpness.csv after every method; one that is there already is not measured again.
"""

import hydra
from omegaconf import DictConfig

from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.sharpness import Start, report_sharpness


@hydra.main(version_base="1.3", config_path="../configs", config_name="sharpness")
@command
def main(config: DictConfig) -> None:
    report_sharpness(Start.from_config(config))


if __name__ == "__main__":
    register_resolvers()
    main()
