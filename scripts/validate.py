"""Evaluate the untuned bases and hold each score against the published one, before hours are spent on tuning.

    python scripts/validate.py scale=paper allow_code_execution=true

Writes results/<scale>/validation.csv. Exit code 1 where a score is outside its tolerance, or missing.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import NotComplete, command
from reproduction.commands import validation
from reproduction.commands.tables import forwarded
from reproduction.preflight import require
from reproduction.running.table import fill

WIDTH = 110
"""Columns of the table; a narrower terminal breaks its lines, and cuts no number."""


@hydra.main(version_base="1.3", config_path="../configs", config_name="validate")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    scale, results = values["scale"], Path(values["results_dir"])
    rows = validation.published_at(scale, tolerance=values["tolerance"])
    rows = validation.chosen(rows, models=values["models"], benchmarks=values["benchmarks"])
    cells = validation.base_cells(rows, scale=scale, overrides=forwarded(values))
    require(cells, scale=scale, results_dir=results)
    outcome = fill(cells, folder=results / scale, workers=values["workers"])
    checked = validation.check(rows, cells)
    validation.show(checked, Console(width=max(Console().width, WIDTH)))
    validation.write(checked, results / scale / "validation.csv")
    print(f"written: {results / scale / 'validation.csv'}")
    if wrong := validation.summary(checked, outcome.failed):
        raise NotComplete(wrong)


if __name__ == "__main__":
    register_resolvers()
    main()
