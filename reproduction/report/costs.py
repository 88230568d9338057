"""Markdown report of benchmark.csv: time and memory of every method as ratios to the frozen base.

Only rows with status "done" count; a row measured on a busy machine with allow_busy=true is marked *.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reproduction.records import write_text
from reproduction.records.costs import BUSY, DONE, FAILED, KEY, OOM, SETTING
from reproduction.records.files import one_sentence
from reproduction.report.documents import document, literal, pipes

Row = Mapping[str, str]
Rows = list[dict[str, str]]
Column = tuple[str, tuple[str, ...], Callable[[Row], str]]
"""Heading, scenario (`setting`), and formatter of a column."""

COMMAND = "python scripts/benchmark.py suite=llama3_8b"
"""Command that measures the data of Figure 3 and of the page."""

EMPTY = "—"
NOT_MEASURED = {OOM: "OOM", FAILED: "failed", BUSY: "busy"}
"""Row status → text shown in place of a number."""

LEGEND = (
    "Ratios are medians over the frozen base's, which is measured first and again last under the same compilation and "
    "checkpointing; its own row has its milliseconds and MiB. A training step is forward, backward and AdamW's update "
    "over random tokens; the gradient goes back to the embeddings in every row, the base's too. Memory is the most "
    "allocated at once minus the weights of base and adapter: activations, gradients and optimiser states are counted. "
    "Prefill gives the last position's logits; decoding is one token after a full static cache. Eager: layers that are "
    "not compiled. On a GPU inference is replayed as a CUDA graph, but for compiled prefill. Extra memory is the peak "
    "above the base's, the adapter's weights included. The file is the saved adapter. Weights are random. In the first "
    "table inference stands in the compilation that has most methods, compiled between equals. The word busy: the "
    "machine was, or its quartiles lay too far apart; benchmark.csv has the number and the reason."
)


def newest(rows: Iterable[Row]) -> Rows:
    """Return the last row of every measurement, ordered by first occurrence."""
    return list({tuple(row[column] for column in KEY): dict(row) for row in rows}.values())


def is_done(row: Row) -> bool:
    """Whether a row may be reported."""
    return row["status"] == DONE


def variant_label(row: Row) -> str:
    """Return the label of a variant: the method, and whether it is merged."""
    return row["label"] + (", merged" if row["merged"] == "true" else "")


def setting(row: Row) -> tuple[str, ...]:
    """Return the scenario of a row."""
    return tuple(row[column] for column in SETTING)


def words(row: Row) -> str:
    """Describe a scenario: "training step, 8 layers, 4 × 1024, compiled, dropout 0.05"."""
    kind = {"train": "training step", "prefill": "prefill", "decode": "decode"}[row["phase"]]
    parts = [kind, f"{row['layers']} layers", f"{row['batch']} × {row['length']}"]
    parts.append("compiled" if row["compiled"] == "true" else "eager")
    parts += [name for name in ("checkpointing", "autocast") if row[name] == "true"]
    parts += [f"dropout {row['dropout']}"] if float(row["dropout"]) else []
    return ", ".join(parts)


def write_costs(path: Path) -> Path:
    """Write benchmark.md beside a benchmark.csv. Raises `RecordError` if the CSV cannot be read."""
    with one_sentence("read", path), path.open(newline="", encoding="utf-8") as file:
        rows = newest(csv.DictReader(file))
    target = path.with_suffix(".md")
    write_text(target, costs_markdown(rows))
    return target


def costs_markdown(rows: Rows) -> str:
    """Return the report: a short table, then every scenario of training and of inference."""
    where = " · ".join(dict.fromkeys(f"{literal(row['model'])} ({row['dtype']}), {row['device']}" for row in rows))
    packages = [name for name in ("torch", "transformers", "peft", "triton") if rows[0][name]]
    versions = ", ".join(f"{name} {rows[0][name]}" for name in packages)
    parts = [f"{where}; {versions}.", short_table(rows), LEGEND]
    if any(is_done(row) and row["busy"] == "true" for row in rows):
        parts.append("\\* measured although the machine was busy.")
    training, inference = _phases(rows)
    for title, own, memory, cell in (
        ("Training", training, "memory above the weights", _memory),
        ("Inference", inference, "extra memory", _extra),
    ):
        if own:
            parts += [f"## {title}: time", _table(own, [(words(row), setting(row), _time) for row in _firsts(own)])]
        if any(row["peak_mib"] for row in own):
            columns = [(words(row), setting(row), cell) for row in _firsts(own)]
            parts += [f"## {title}: {memory}", _table(own, columns)]
    return document("What the methods cost", *parts)


def short_table(rows: Rows) -> str:
    """Return the table of docs/benchmark.md: plain training, the inference scenarios of `_fullest`, adapter sizes."""
    inference, plain = _phases(rows)[1], _plain(rows)
    columns = [(f"{words(row)}: time", setting(row), _time) for row in _firsts(plain)]
    columns += [(f"{words(row)}: memory", setting(row), _memory) for row in _firsts(plain) if row["peak_mib"]][:1]
    columns += [(f"{words(row)}: time", setting(row), _time) for row in _fullest(inference)]
    return _table(rows, columns, size=True)


def relative(rows: Rows, *, method: str, to: str) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest ratio of two methods' costs, of what was measured of both in one scenario.

    Args:
        rows: of benchmark.csv.
        method, to: the variants; the ratio is of the first to the second.

    Returns:
        "time" and "memory" (above the weights) of training steps; "file" with the most layers; "use": the time of
        inference over the merged second's; "merged": the merged second's over the frozen base's.
    """
    files = [row for row in rows if row["adapter_file_bytes"]]
    most = [row for row in files if int(row["layers"]) == max(int(each["layers"]) for each in files)]
    training, inference = _phases(rows)
    ratios = {
        "time": _ratios(training, "median_ms", of=(method, to)),
        "memory": _ratios(training, "peak_above_weights_mib", of=(method, to)),
        "file": _ratios(most, "adapter_file_bytes", of=(method, to))[:1],
        "use": _ratios(inference, "median_ms", of=(method, f"{to}_merged")),
        "merged": _ratios(inference, "median_ms", of=(f"{to}_merged", "base")),
    }
    return {name: (min(own), max(own)) for name, own in ratios.items() if own}


def _ratios(rows: Rows, column: str, *, of: tuple[str, str]) -> list[float]:
    """Return a column's ratio of two variants for each scenario with both."""
    done = {(row["variant"], setting(row)): row for row in rows if is_done(row) and row[column]}
    both = [[done.get((variant, setting(row))) for variant in of] for row in _firsts(rows)]
    return [float(own[column]) / float(its[column]) for own, its in both if own and its]


def _plain(rows: Rows) -> Rows:
    """Return the training steps without dropout, checkpointing and autocast."""
    special = ("checkpointing", "autocast")
    return [r for r in _phases(rows)[0] if not float(r["dropout"]) and "true" not in [r[name] for name in special]]


def _phases(rows: Rows) -> tuple[Rows, Rows]:
    return [row for row in rows if row["phase"] == "train"], [row for row in rows if row["phase"] != "train"]


def _firsts(rows: Rows) -> Rows:
    """Return one row per scenario."""
    return list({setting(row): row for row in reversed(rows)}.values())[::-1]


def _fullest(rows: Rows) -> Rows:
    """Return one row for each workload, of the scenario with the most measured variants; ties go to compiled."""
    best: dict[tuple[str, ...], Row] = {}

    def fullness(first: Row) -> tuple[int, bool]:
        return sum(is_done(row) and setting(row) == setting(first) for row in rows), first["compiled"] == "true"

    for first in _firsts(rows):
        work = tuple(first[column] for column in ("phase", "layers", "batch", "length"))
        best[work] = max(best.get(work, first), first, key=fullness)
    return list(best.values())


def _table(rows: Rows, columns: list[Column], *, size: bool = False) -> str:
    """Return a table with a line per variant; ``size`` adds the adapter file's size at the largest number of layers."""
    most = max((int(row["layers"]) for row in rows if row["adapter_file_bytes"]), default=0)
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = {setting(row): row for row in rows if row["variant"] == variant}
        cells = [cell(own[where]) if where in own else EMPTY for _, where, cell in columns]
        dtype = next((row["adapter_dtype"] for row in own.values() if row["adapter_dtype"]), EMPTY)
        file = next((row["adapter_file_bytes"] for row in own.values() if row["layers"] == str(most)), "")
        sizes = [f"{float(file) / 2**20:.1f}" if file else EMPTY] * size
        if set(cells) != {EMPTY}:
            lines.append([variant_label(next(iter(own.values()))), dtype, *cells, *sizes])
    headings = ["Method", "Adapter in", *(heading for heading, _, _ in columns)]
    return pipes(headings + [f"file, {most} layers (MiB)"] * size, lines)


def _time(row: Row) -> str:
    return _shown(row, "ratio", lambda ratio: f"{ratio:.3f}", base=("median_ms", "{:.3g} ms"))


def _memory(row: Row) -> str:
    return _shown(row, "memory_ratio", lambda ratio: f"{ratio:.3f}", base=("peak_above_weights_mib", "{:,.0f} MiB"))


def _extra(row: Row) -> str:
    return _shown(row, "extra_mib", lambda value: f"{value:+,.0f} MiB", base=("peak_mib", "{:,.0f} MiB"))


def _shown(row: Row, column: str, form: Callable[[float], str], *, base: tuple[str, str]) -> str:
    """Format a ratio, or for the base (which trains nothing) its absolute value."""
    if not is_done(row) or not row[column]:
        return NOT_MEASURED.get(row["status"], EMPTY)
    absolute, own_form = base
    number = own_form.format(float(row[absolute])) if row["trainable"] == "0" else form(float(row[column]))
    return number + ("\\*" if row["busy"] == "true" else "")
