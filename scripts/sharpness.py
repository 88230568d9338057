"""Measure quantities at the start of training that explain the methods' best learning rates.

python scripts/sharpness.py experiment=multitask_llama3_2_3b scale=tiny methods=[lora,idlora]
"""

from reproduction.commands.script import hydra_command
from reproduction.commands.sharpness import Start, report_sharpness


@hydra_command("sharpness")
def main(config):
    report_sharpness(Start.from_config(config))


if __name__ == "__main__":
    main()
