"""Count what every method trains on every base model, without weights, and compare with what the paper prints.

    python scripts/counts.py table=table6

Writes results/counts/. Exit code 1 where a number differs from the paper's printed one.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands import counts
from reproduction.report.counts import (
    Compared,
    percentages_markdown,
    table6_markdown,
    write_counts,
    write_figure1c,
    write_percentages,
    write_table6,
)


def table6(folder: Path) -> list[Compared]:
    compared = counts.table6()
    print(table6_markdown(compared))
    _written(write_table6(compared, folder))
    return compared


def percentages(folder: Path) -> list[Compared]:
    compared = counts.percentages()
    embedded = counts.embedded_twins(compared)
    print(percentages_markdown(compared, embedded))
    _written(write_percentages(compared, embedded, folder))
    return compared


def figure1c(folder: Path) -> list[Compared]:
    _written(write_figure1c(counts.figure1c(), folder))
    return []


def inventory(folder: Path) -> list[Compared]:
    _written(write_counts(counts.inventory(), folder))
    return []


TABLES = {"table6": table6, "percentages": percentages, "figure1c": figure1c, "counts": inventory}


@hydra.main(version_base="1.3", config_path="../configs", config_name="counts")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    asked = values["table"]
    if asked is not None and asked not in TABLES:
        raise ConfigError(f"there is no table={asked}; they are {', '.join(TABLES)}")
    folder = Path(values["results_dir"]) / "counts"
    compared = [each for name in ([asked] if asked else TABLES) for each in TABLES[name](folder)]
    counts.require_agreement(compared)


def _written(paths: list[Path]) -> None:
    print("written: " + ", ".join(map(str, paths)))


if __name__ == "__main__":
    register_resolvers()
    main()
