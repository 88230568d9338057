"""Paths of the checkout: configs, experiments and committed results."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
EXPERIMENTS = REPOSITORY / "experiments"
RESULTS = REPOSITORY / "results"
