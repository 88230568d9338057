"""Check every claim of the paper that has a number or an ordering by its tables and ours.

    python scripts/audit.py --scale tiny

Needs no run, no torch and no network; claims without a measurement are marked as such.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from reproduction.cells.nearest import scale_name
from reproduction.cli import command
from reproduction.paths import EXPERIMENTS, RESULTS
from reproduction.report.audit import audit, totals, write_audit


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scale", type=scale_name, default="tiny", help="whose tables of ours stand beside the claims (default: tiny)"
    )
    parser.add_argument("--experiments", type=Path, default=EXPERIMENTS, help="the paper's tables and claims")
    parser.add_argument("--results", type=Path, default=RESULTS, help="ours; audit/ is written here")
    options = parser.parse_args()
    found = audit(options.experiments, options.results, scale=options.scale)
    for path in write_audit(found, options.results / "audit"):
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    print(totals(found))


if __name__ == "__main__":
    main()
