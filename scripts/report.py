"""Rebuild a table from the finished runs and print it: Markdown, CSV and LaTeX, and metrics.csv.

    python scripts/report.py table=table1 scale=tiny

Exit code 1 if a cell is missing, after naming the command that fills it.
"""

from reproduction.commands.script import hydra_command
from reproduction.commands.tables import plan_config, report_tables


@hydra_command("report")
def main(config):
    report_tables(plan_config(config, gpus=0))


if __name__ == "__main__":
    main()
