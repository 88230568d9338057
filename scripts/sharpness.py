"""Measure each method where its training starts, to explain its best learning rate.

    python scripts/sharpness.py experiment=multitask_llama3_2_3b scale=tiny
    python scripts/sharpness.py experiment=multitask_llama3_2_3b scale=tiny methods=[lora,idlora]

Norms of A's rows, the first step and the loss's largest Hessian eigenvalue, in float32, go to
results/<scale>/sharpness.csv. Stop it at any moment: the same command goes on.
"""

from reproduction.commands.script import hydra_command
from reproduction.commands.sharpness import Start, report_sharpness


@hydra_command("sharpness")
def main(config):
    report_sharpness(Start.from_config(config))


if __name__ == "__main__":
    main()
