"""Test every method of a table against the table's reference, paired by item, and print the tests.

    python scripts/stats.py table=table1 scale=tiny

Exit code 1 if a cell is missing, after naming the command that fills it.
"""

from reproduction.commands.script import hydra_command
from reproduction.commands.tables import plan_config, report_statistics


@hydra_command("report")
def main(config):
    report_statistics(plan_config(config, gpus=0))


if __name__ == "__main__":
    main()
