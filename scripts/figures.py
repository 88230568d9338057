"""Draw figures as PNG and PDF from the existing tables, tests and counts.

    python scripts/figures.py figure=figure1
    python scripts/figures.py figure=all scale=tiny

Exit code 1 if a figure lacks its data, after naming the command that makes them.
"""

import sys
from pathlib import Path

from reproduction.cli import NotComplete
from reproduction.commands.script import hydra_command
from reproduction.paths import EXPERIMENTS
from reproduction.report.figures import Sources, draw_figures


@hydra_command("figures")
def main(config):
    sources = Sources(Path(config.results_dir), EXPERIMENTS, config.scale, config.benchmark)
    written, absent = draw_figures(sources, config.figure)
    for path in written:
        print(path)
    for each in absent:
        print(each, file=sys.stderr)
    if absent and not config.allow_missing:
        raise NotComplete(f"{len(absent)} of the figures could not be drawn")


if __name__ == "__main__":
    main()
