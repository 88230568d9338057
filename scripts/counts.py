"""Count the trained parameters of every method on every base, without weights, beside the paper's.

    python scripts/counts.py table=table6        # Table 6
    python scripts/counts.py table=percentages   # the "# Params (%)" of Tables 1, 2, 3 and 7
    python scripts/counts.py table=figure1c      # the data of Figure 1(c)
    python scripts/counts.py                     # these, and counts.csv

Exit code 1 if a number differs from the paper's.
"""

from reproduction.commands.counts import report_counts
from reproduction.commands.script import hydra_command


@hydra_command("counts")
def main(config):
    report_counts(config.table, results_dir=config.results_dir)


if __name__ == "__main__":
    main()
