"""Compare the experiments' configs at the paper's scale with the hyperparameters that the paper prints.

python scripts/hyperparameters.py table=table4
"""

from reproduction.commands.hyperparameters import report_hyperparameters
from reproduction.commands.script import hydra_command


@hydra_command("hyperparameters")
def main(config):
    report_hyperparameters(config.table, results_dir=config.results_dir)


if __name__ == "__main__":
    main()
