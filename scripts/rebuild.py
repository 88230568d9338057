"""Rebuild the committed reference of a scale byte for byte from its committed records.

    python scripts/rebuild.py --scale tiny

Needs no run, no torch, no config and no network.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from reproduction.cells.nearest import scale_name
from reproduction.cli import command
from reproduction.paths import EXPERIMENTS, RESULTS
from reproduction.report.rebuild import rebuild


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=scale_name, default="tiny", help="whose reference (default: tiny)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="reference/<scale> lies and stays here")
    options = parser.parse_args()
    print(f"rebuilt: {rebuild(options.results, EXPERIMENTS, scale=options.scale)}")


if __name__ == "__main__":
    main()
