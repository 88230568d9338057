"""A measured evaluation → evaluation.csv, evaluation.md and provenance.json of the device's folder in results."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction.cells.evaluation import EvalJob
from reproduction.commands.benchmark import device_folder
from reproduction.records import environment, read_json, write_json
from reproduction.report.speed import write_speed

MACHINES = ("results_dir=", "data_root=", "into=")
"""Beginnings of arguments that say where things lie on this machine."""

FOLDER = re.compile(r"=/.*")
"""What another argument says of a place on this machine."""


def record_speed(
    job: EvalJob,
    *,
    model: Mapping[str, Any],
    label: str | None,
    compared: int,
    into: str | None,
    results_dir: Path | str,
) -> list[Path]:
    """Measure every protocol of a job, writing each row as soon as it is there; returns the files.

    Args:
        job: what is evaluated.
        model: its config, with "label", "init" and "dtype".
        label: what it is called in the records; None is its own label.
        compared: as in `reproduction.commands.speed.measure`.
        into: folder of the files; None is the device's in ``results_dir``.
    """
    import torch

    from reproduction.benchmark.record import benchmark_environment
    from reproduction.commands.speed import measure

    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(into) if into else device_folder(device, results_dir)
    name, found = label or model["label"], environment()
    typed = shlex.join(
        ["python", *(FOLDER.sub("=<folder>", part) for part in sys.argv if not part.startswith(MACHINES))]
    )
    own = benchmark_environment(name, model["dtype"], torch.device(device))
    own |= {"weights": model["init"], "command": typed, "lm_eval": found["packages"].get("lm-eval")}
    asked = [f"{protocol.benchmark} {protocol.name}" for protocol in job.protocols]
    place = folder / "provenance.json"
    runs = read_json(place)["runs"] if place.is_file() else []
    here = {key: own[key] for key in ("device", "driver")} | {"command": typed, "model": name, "benchmarks": asked}
    write_json(place, {"runs": [*runs, found | here]})
    paths: list[Path] = []

    def say(row: Mapping[str, Any]) -> None:
        paths[:] = write_speed([own | row], folder)
        print(line(row), flush=True)

    measure(job, compared=compared, say=say)
    return paths


def line(row: Mapping[str, Any]) -> str:
    """One row for the terminal."""
    said = f"{row['benchmark']} {row['protocol']}: {row['items']} items, {row['seconds']:.1f} s"
    said += f" (prefill {row['prefill_seconds']:.1f}, decoding {row['decode_seconds']:.1f}"
    said += f", {row['gpu_bytes'] / 1e9:.1f} GB)" if row["gpu_bytes"] else ")"
    if "baseline" in row:
        said += f"; {row['compared_items']} prompts: {row['compared_seconds']:.2f} s (at first "
        said += f"{row['first_seconds']:.2f}), {row['baseline']} {row['baseline_seconds']:.2f} s in batches of "
        said += f"{row['baseline_batch']}: x{row['speedup']:.2f}, agreement {row['agreement']:.3f}"
    return said
