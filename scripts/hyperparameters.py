"""Compare the experiments' configs at the paper's scale with the hyperparameters that the paper prints.

    python scripts/hyperparameters.py table=table4

Writes results/counts/<table>.{csv,md,tex}. Exit code 1 where a value differs.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import NotComplete, command
from reproduction.commands.hyperparameters import hyperparameters
from reproduction.report.hyperparameters import differing, markdown, summary, write


@hydra.main(version_base="1.3", config_path="../configs", config_name="hyperparameters")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    table = values["table"]
    found = hyperparameters(table)
    title = f"Table {table.removeprefix('table')}: hyperparameters of ID-LoRA"
    print(markdown(title, found))
    written = write(table, title, found, folder=Path(values["results_dir"]) / "counts")
    print("written: " + ", ".join(map(str, written)))
    if differing(found):
        raise NotComplete(summary(found))


if __name__ == "__main__":
    register_resolvers()
    main()
