"""Measure the paper's theory: Theorems 1 and 2, the rank of the update, and whether rows of W cluster.

    python scripts/theory.py                       # rewrites results/theory

Curves as CSV with intervals, verdicts, theory.md and figures. No model is loaded or trained.
"""

import argparse
from itertools import groupby
from pathlib import Path

import yaml

from reproduction.cells.config_schema import parse_dataclass
from reproduction.cli import command
from reproduction.paths import EXPERIMENTS, REPOSITORY, RESULTS
from reproduction.theory import Claim, Theory, summary, write


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", type=Path, default=EXPERIMENTS / "theory/settings.yaml", help="sizes and seeds")
    parser.add_argument("--claims", type=Path, default=EXPERIMENTS / "theory/claims.yaml", help="what is decided")
    parser.add_argument(
        "--bases", type=Path, default=REPOSITORY / "reproduction/tinyworld/bases", help="folder of the small bases"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "theory", help="folder that is written")
    arguments = parser.parse_args()
    settings = parse_dataclass(Theory, yaml.safe_load(arguments.settings.read_text(encoding="utf-8")), where="theory")
    claims = [
        parse_dataclass(Claim, each, where="claim")
        for each in yaml.safe_load(arguments.claims.read_text(encoding="utf-8"))
    ]
    verdicts = write(settings, claims, bases=arguments.bases, out=arguments.out)
    for _, group in groupby(verdicts, key=lambda verdict: verdict.claim):
        claim = list(group)
        print(f"{claim[0].statement} ({claim[0].source})\n    {summary(claim)}")
    print(f"Written to {arguments.out}: the curves, verdicts.csv, theory.md, figures/")


if __name__ == "__main__":
    main()
