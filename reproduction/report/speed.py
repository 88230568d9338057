"""Evaluation speed in evaluation.csv and evaluation.md: a row for each model, benchmark and protocol.

A new measurement replaces the old row; other rows stay. `prefill_seconds` and `decode_seconds` are the model's;
`seconds` is the wall time of the whole benchmark. The columns compared_… and baseline_… are of the same prompts in both
ways of evaluation: empty without a baseline.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.records import write_text
from reproduction.report.documents import document, pipes, read_csv, write_csv

FILE = "evaluation.csv"
KEY = ("model", "benchmark", "protocol")
COLUMNS = (
    *KEY, "weights", "max_new_tokens", "items", "answers", "seconds", "prompt_tokens", "generated_tokens",
    "prefill_seconds", "decode_seconds", "gpu_bytes", "compared_items", "compared_tokens", "batch", "first_seconds",
    "compared_seconds", "baseline", "baseline_batch", "baseline_seconds", "speedup", "agreement", "dtype", "device",
    "driver", "command", "commit", "torch", "transformers", "lm_eval",
)  # fmt: skip
HEADINGS = [
    "Model", "Benchmark", "items", "answers", "s", "tokens/s", "GB", "compared with", "prompts", "s, ours",
    "s, theirs", "times as fast", "agreement",
]  # fmt: skip

LEGEND = (
    "The wall's seconds are of the whole benchmark: prompts, tokens, answers, scores and programs, without loading the "
    "model. Tokens/s are those generated in a second of decoding or, where nothing is generated, those of the prompts, "
    "each with all of its worked examples. The last columns are of the same prompts in one batch through `generate` of "
    "transformers, or through lm-eval's HFLM, in the same run: answers are greedy and all of the same length in both. "
    "Agreement is the share of an answer up to which both say the same (greedy answers part where two logits round the "
    "other way), or of the items with the same letter."
)


def read_speed(folder: Path) -> Sequence[Mapping[str, str]]:
    """Return the rows of a folder's evaluation.csv, none without that file. Raises `RecordError`."""
    return read_csv(folder / FILE)


def write_speed(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write evaluation.csv with these rows merged into the existing ones, and evaluation.md. Raises `RecordError`."""
    new = [{column: _spelled(row.get(column)) for column in COLUMNS} for row in rows]
    by_key = {tuple(row[column] for column in KEY): row for row in [*read_speed(folder), *new]}
    every = [{column: row.get(column, "") for column in COLUMNS} for _, row in sorted(by_key.items())]
    write_csv(folder / FILE, COLUMNS, every)
    text = document("What evaluation takes", pipes(HEADINGS, [_line(row) for row in every]), LEGEND)
    write_text(folder / "evaluation.md", text)
    return [folder / FILE, folder / "evaluation.md"]


def _line(row: Mapping[str, str]) -> list[str]:
    generated = float(row["generated_tokens"] or 0)
    tokens, seconds = (generated, "decode_seconds") if generated else (row["prompt_tokens"], "prefill_seconds")
    rate = float(tokens) / float(row[seconds]) if float(row[seconds] or 0) else 0.0
    compared = (("compared_seconds", ".2f"), ("baseline_seconds", ".2f"), ("speedup", ".1f"), ("agreement", ".2f"))
    return [
        row["model"],
        f"{row['benchmark']} {row['protocol']}",
        f"{int(row['items']):,}",
        f"{int(row['answers']):,}",
        f"{float(row['seconds']):.1f}",
        f"{rate:,.0f}",
        f"{float(row['gpu_bytes']) / 1e9:.1f}" if float(row["gpu_bytes"] or 0) else "—",
        row["baseline"] or "—",
        row["compared_items"] or "—",
        *(f"{float(row[name]):{digits}}" if row["baseline"] else "—" for name, digits in compared),
    ]


def _spelled(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
