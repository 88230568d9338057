"""What a release runs beside the tests: load, several commands at once, kills at random moments, full disks.

    python tests/torture [candidates] [commands] [kills] [disks]

Under 15 minutes on two cores; all parts where none is named. Prints what was measured. The exit code is 1 where
something does not hold, or, in a sentence, where full disks cannot be tried.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path += [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "running")]
import candidates
import commands
import disks


@functools.cache
def _alone(folder: Path):
    return commands.undisturbed(folder)


PARTS = {
    "candidates": lambda folder: candidates.candidates(),
    "commands": lambda folder: commands.together(_alone(folder), folder),
    "kills": lambda folder: commands.kills(_alone(folder), folder),
    "disks": disks.full_disks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one of {', '.join(PARTS)}; all where none is named")
    asked = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in asked if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; they are {', '.join(PARTS)}")
    if why := disks.no_disk() if "disks" in asked else None:
        sys.exit(f"This cannot run here: {why}.")
    rows, wrong, began = [], [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        for name in asked:
            start = time.monotonic()
            print(f"{name} …", flush=True)
            try:
                rows += PARTS[name](Path(folder)).items()
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
            rows.append((f"{name}: time", f"{time.monotonic() - start:.0f} s"))
    rows.append(("all of it", f"{(time.monotonic() - began) / 60:.1f} min on {len(os.sched_getaffinity(0))} cores"))
    width = max(len(what) for what, _ in rows)
    print("\n".join(f"{what:{width}}  {figure}" for what, figure in rows), flush=True)
    for sentence in wrong:
        print(f"does not hold: {sentence}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
