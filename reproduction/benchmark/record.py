"""Rows → benchmark.csv, written row by row, and provenance.json beside it: the commands and their environments."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reproduction.benchmark.idle_check import driver_version
from reproduction.records import RecordError, environment, read_json, write_json, write_text
from reproduction.records.costs import KEY, STATUSES
from reproduction.records.files import one_sentence
from reproduction.training.telemetry import device_name

SITUATION = (
    "scenario", "phase", "layers", "batch", "length", "compiled", "checkpointing", "autocast", "dropout",
)  # fmt: skip
VARIANT = ("variant", "method", "label", "merged")
OUTCOME = ("status", "reason", "busy")
TIME = (
    "median_ms",
    "q1_ms",
    "q3_ms",
    "min_ms",
    "repeats",
    "ratio",
    "base_drift",
    "compile_seconds",
    "graphs",
    "graph_breaks",
)
MEMORY = ("peak_mib", "peak_above_weights_mib", "memory_ratio", "extra_mib")
FACTS = ("adapter_dtype", "trainable", "trainable_bytes", "adapter_file_bytes", "index_bytes", "pivot_seconds")
ENVIRONMENT = ("model", "dtype", "device", "driver", "threads", "python", "torch", "transformers", "peft", "triton")
COLUMNS = (*SITUATION, *VARIANT, *OUTCOME, *TIME, *MEMORY, *FACTS, *ENVIRONMENT, "commit")
"""Columns of benchmark.csv, described in `experiments/figure3/README.md`."""

DONE, BUSY, OOM, FAILED = STATUSES


def benchmark_environment(model: str, dtype: str, device: torch.device) -> dict[str, Any]:
    """Return the columns `ENVIRONMENT` and "commit", equal in all rows of one run; None for what is not installed."""
    found = environment()
    return {
        "model": model,
        "dtype": dtype,
        "device": device_name(device),
        "driver": driver_version(device),
        "threads": torch.get_num_threads(),
        "python": found["python"],
        **{package: found["packages"][package] for package in ("torch", "transformers", "peft", "triton")},
        "torch": torch.__version__,  # with its build: +cu130, +cpu
        "commit": found["git"]["commit"] and found["git"]["commit"][:12] + ("+" if found["git"]["dirty"] else ""),
    }


class Records:
    """benchmark.csv of one folder, written after each row. Existing rows stay unless they are measured again.

    Raises `RecordError` if the file has other columns or rows of another environment.
    """

    def __init__(self, folder: Path | str, environment: Mapping[str, Any]):
        self.path = Path(folder) / "benchmark.csv"
        self.environment = {column: format_value(environment[column]) for column in (*ENVIRONMENT, "commit")}
        self.rows: dict[tuple[str, ...], dict[str, str]] = {}
        if self.path.is_file():
            self._load()
        else:
            self.write()

    def _load(self) -> None:
        with one_sentence("read", self.path):
            rows = csv.DictReader(self.path.read_text(encoding="utf-8").splitlines())
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise RecordError(
                f"{self.path} has other columns than this version writes: move it away, or give results_dir"
            )
        for row in rows:
            for column in ENVIRONMENT:
                if row[column] != self.environment[column]:
                    raise RecordError(
                        f"{self.path} was measured with {column}={row[column] or 'none'}, this is "
                        f"{self.environment[column] or 'none'}: one file holds one environment; move it away, or give "
                        "another results_dir"
                    )
            self._add(row)

    def _add(self, row: dict[str, str]) -> None:
        key = tuple(row[column] for column in KEY)
        self.rows.pop(key, None)  # a row measured anew goes to the end
        self.rows[key] = row

    def append(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Add a finished row and write the file; return the row as written, for `amend`."""
        whole = {column: format_value(row.get(column)) for column in COLUMNS} | self.environment
        self._add(whole)
        self.write()
        return whole

    def amend(self, row: dict[str, str], changes: Mapping[str, Any]) -> None:
        """Change an appended row in memory; the next `write` saves it."""
        row.update({column: format_value(value) for column, value in changes.items()})

    def write(self) -> None:
        """Write the file atomically."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        write_text(self.path, text.getvalue())

    def add_command(self, command: str, scenarios: list[str]) -> None:
        """Add a run to provenance.json: its exact command, its scenarios and its environment."""
        path = self.path.with_name("provenance.json")
        runs = read_json(path)["runs"] if path.is_file() else []
        here = {column: self.environment[column] for column in ("device", "driver")}
        write_json(path, {"runs": [*runs, environment() | here | {"command": command, "scenarios": scenarios}]})


def format_value(value: object) -> str:
    """Format a value for the CSV: None is empty, booleans are true and false, floats have six significant digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
