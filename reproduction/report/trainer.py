"""The trainer beside a plain loop → trainer.csv, trainer.md and their provenance."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.records import write_json, write_text
from reproduction.report.documents import document, pipes

LEGEND = (
    "Random weights, examples of random tokens with the lengths of the multi-task mixture. The plain loop pads the "
    "rows of a step to the longest and takes them in one pass; it is measured before the trainer and again after it. "
    "Times are medians after warm-up; tokens are the examples' own, without padding. The ratio is of tokens a second "
    "to the faster of the two plain loops. Memory is the most allocated at once."
)


def write_trainer(rows: Sequence[Mapping[str, Any]], folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
    """trainer.csv, trainer.md and trainer.json, the provenance, in the folder. Raises `RecordError`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
    )
    paths = [folder / f"trainer.{ending}" for ending in ("csv", "md", "json")]
    write_text(paths[0], text.getvalue())
    write_text(paths[1], document("The trainer and a plain loop", _table(rows), LEGEND))
    write_json(paths[2], dict(provenance))
    return paths


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["Model", "Method", "Loop", "Passes", "ms a step", "IQR", "tokens/s", "ratio", "set up (s)", "GB"]
    return pipes(
        head,
        [
            [
                row["model"],
                row["method"],
                row["loop"],
                row["passes"],
                f"{1000 * row['step_seconds_median']:.1f}",
                f"{1000 * row['step_seconds_iqr']:.1f}",
                f"{row['tokens_per_second']:,.0f}",
                "—" if math.isnan(row["ratio"]) else f"{row['ratio']:.2f}",
                f"{row['setup_seconds']:.1f}",
                "—" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e9:.1f}",
            ]
            for row in rows
        ],
    )
