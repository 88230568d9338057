"""Write the HTML page: every table, figure, test and the audit in one self-contained file.

    python scripts/page.py scale=tiny

The page names the command that makes what is not there yet.
"""

from pathlib import Path

from reproduction.commands.script import hydra_command
from reproduction.paths import EXPERIMENTS
from reproduction.report.figures import Sources
from reproduction.report.page import write_page


@hydra_command("page")
def main(config):
    size = write_page(Sources(Path(config.results_dir), EXPERIMENTS, config.scale), Path(config.output))
    print(f"{config.output} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
