"""Compare the experiments' configs at the paper's scale with the paper's hyperparameters.

    python scripts/hyperparameters.py table=table4
    python scripts/hyperparameters.py table=table5

Exit code 1 if a value differs.
"""

from reproduction.commands.hyperparameters import report_hyperparameters
from reproduction.commands.script import hydra_command


@hydra_command("hyperparameters")
def main(config):
    report_hyperparameters(config.table, results_dir=config.results_dir)


if __name__ == "__main__":
    main()
