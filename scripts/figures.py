"""Draw figures as PNG and PDF, from the tables, tests and counts that are there.

    python scripts/figures.py figure=figure1
    python scripts/figures.py figure=all scale=tiny

Exits 1 where a figure lacks its data, after naming the command that makes them; allow_missing=true accepts gaps.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from reproduction.cli import NotComplete, command
from reproduction.paths import EXPERIMENTS
from reproduction.report.figures import Sources, draw_figures


@hydra.main(version_base="1.3", config_path="../configs", config_name="figures")
@command
def main(config: DictConfig) -> None:
    sources = Sources(
        results=Path(config.results_dir), experiments=EXPERIMENTS, scale=config.scale, benchmark=config.benchmark
    )
    written, absent = draw_figures(sources, config.figure)
    for path in written:
        print(path)
    for each in absent:
        print(each, file=sys.stderr)
    if absent and not config.allow_missing:
        raise NotComplete(f"{len(absent)} of the figures could not be drawn")


if __name__ == "__main__":
    main()
