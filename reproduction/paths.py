"""Where the checkout has what the reproduction reads: configs and experiments, and the committed results."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
EXPERIMENTS = REPOSITORY / "experiments"
RESULTS = REPOSITORY / "results"
