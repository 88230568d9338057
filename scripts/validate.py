"""Evaluate the untuned bases and compare each score with the published one.

    python scripts/validate.py scale=paper allow_code_execution=true
    python scripts/validate.py scale=paper 'benchmarks=[mmlu]'
    python scripts/validate.py scale=tiny 'models=[pebble]' 'benchmarks=[mmlu,commonsenseqa]'

Exit code 1 if a score is missing, or further from the published one than
experiments/validation/published.csv allows.
"""

from pathlib import Path

from rich.console import Console

from reproduction.cells.compose import plain
from reproduction.commands import validation
from reproduction.commands.script import hydra_command
from reproduction.preflight import require
from reproduction.running.table import fill

WIDTH = 110
"""Width of the table in columns; a narrower terminal wraps its lines and truncates no number."""


@hydra_command("validate")
def main(config):
    values = plain(config)
    scale, results = values["scale"], Path(values["results_dir"])
    rows, cells = validation.asked_rows(values)
    require(cells, scale=scale, results_dir=results)
    outcome = fill(cells, folder=results / scale, workers=values["workers"])
    checked = validation.check(rows, cells)
    validation.show(checked, Console(width=max(Console().width, WIDTH)))
    validation.write(checked, results / scale / "validation.csv")
    print(f"written: {results / scale / 'validation.csv'}")
    validation.require_within(checked, outcome.failed)


if __name__ == "__main__":
    main()
