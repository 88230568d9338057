"""The tables of the committed reference; a checkout may have tables of its user's own beside them."""

import yaml

from reproduction.commands.reference import REFERENCES
from reproduction.paths import EXPERIMENTS
from reproduction.report import Grid, load_grid


def committed_grids(*scales: str) -> list[Grid]:
    """Return the grids of the tables that experiments/reference.yaml has at one of the scales."""
    known = yaml.safe_load(REFERENCES.read_text(encoding="utf-8"))
    return [load_grid(EXPERIMENTS / name) for name in sorted({name for scale in scales for name in known[scale]})]


def committed_pairs(scale: str) -> set[tuple[str, str]]:
    """Return (experiment, method) of what these tables train at a scale."""
    cells = (cell for grid in committed_grids(scale) for cell in grid.at(scale).cells())
    return {(experiment, method) for experiment, method, _ in cells if method != "base"}
