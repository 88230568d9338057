"""Compare finished trainings (time, memory, one GPU with several) in training.csv and training.md.

    python scripts/scaling.py results/paper/runs --into results/h200 --memory-gb 80 --scaling 1.85

Exit code 1 if a run's loss does not fall, its memory or scaling misses the limits, a step is an
outlier, or a damaged run is left out.
"""

import argparse
from pathlib import Path

from reproduction.cli import NotComplete, command
from reproduction.records import RecordError, find_runs
from reproduction.report.training import problems, training_rows, write_training


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, such as results/paper/runs")
    parser.add_argument("--into", required=True, type=Path, help="folder for training.csv and training.md")
    parser.add_argument("--memory-gb", type=float, default=80.0, help="most that one GPU may have had allocated")
    parser.add_argument("--scaling", type=float, default=1.85, help="least tokens/s on two GPUs over one, of adapters")
    asked = parser.parse_args()
    runs, damaged = [], []
    for run in (run for folder in asked.runs for run in find_runs(folder)):
        try:
            if run.done and "step_seconds_median" in run.resources and training_rows([run]):  # trained, and readable
                runs.append(run)
        except RecordError as error:
            damaged.append(str(error))
    rows = training_rows(runs)
    for path in write_training(rows, asked.into):
        print(f"written: {path}")
    if found := [*damaged, *problems(rows, memory_bytes=asked.memory_gb * 1e9, scaling=asked.scaling)]:
        raise NotComplete("\n".join(found))


if __name__ == "__main__":
    main()
