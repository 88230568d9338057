"""Write the report that a person opens: every table, figure, test and the audit as one self-contained HTML file.

    python scripts/page.py scale=tiny

What has not been made yet stands in the page with the command that makes it.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from reproduction.cli import command
from reproduction.paths import EXPERIMENTS
from reproduction.report.figures import Sources
from reproduction.report.page import write_page


@hydra.main(version_base="1.3", config_path="../configs", config_name="page")
@command
def main(config: DictConfig) -> None:
    sources = Sources(results=Path(config.results_dir), experiments=EXPERIMENTS, scale=config.scale)
    size = write_page(sources, Path(config.output))
    print(f"{config.output} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
