"""Count the trained parameters of every method on every base model, without weights, and compare with the paper.

python scripts/counts.py table=table6
"""

from reproduction.commands.counts import report_counts
from reproduction.commands.script import hydra_command


@hydra_command("counts")
def main(config):
    report_counts(config.table, results_dir=config.results_dir)


if __name__ == "__main__":
    main()
