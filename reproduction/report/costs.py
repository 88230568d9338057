"""benchmark.csv → a Markdown report of it: times and memory of every method as ratios to the frozen base.

A row counts where its status is "done"; one that was measured on a busy machine, by allow_busy=true, is marked *.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reproduction.records import write_text
from reproduction.records.costs import BUSY, DONE, FAILED, KEY, OOM, SETTING
from reproduction.records.files import one_sentence
from reproduction.report.documents import document, literal, pipes

Row = Mapping[str, str]
Rows = list[dict[str, str]]

COMMAND = "python scripts/benchmark.py suite=llama3_8b"
"""Measures what Figure 3 and the page show."""

SITUATION = ("phase", "layers", "batch", "length")
"""Scenarios that agree in these do the same work."""

Setting = tuple[str, ...]
"""Values of `SETTING`: one scenario."""

EMPTY = "—"
MIB = 2**20
NOT_MEASURED = {OOM: "OOM", FAILED: "failed", BUSY: "busy"}
"""What stands in the place of a number, by the row's status."""

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

HEAD = ("Method", "Adapter in")


def read_costs(path: Path) -> Rows:
    """The newest row of every measurement in benchmark.csv. Raises `RecordError` where it cannot be read."""
    with one_sentence("read", path), path.open(newline="", encoding="utf-8") as file:
        return newest(csv.DictReader(file))


def newest(rows: Sequence[Row]) -> Rows:
    """The last row of every measurement, in the order of the first."""
    return list({tuple(row[column] for column in KEY): dict(row) for row in rows}.values())


def is_done(row: Row) -> bool:
    """Whether a row may be reported."""
    return row["status"] == DONE


def variant_label(row: Row) -> str:
    """A variant as it is read: the method, and whether it is merged."""
    return row["label"] + (", merged" if row["merged"] == "true" else "")


def words(row: Row) -> str:
    """A scenario as it is read: "training step, 8 layers, 4 × 1024, compiled, dropout 0.05"."""
    kind = {"train": "training step", "prefill": "prefill", "decode": "decode"}[row["phase"]]
    parts = [kind, f"{row['layers']} layers", f"{row['batch']} × {row['length']}"]
    parts.append("compiled" if row["compiled"] == "true" else "eager")
    parts += [name for name in ("checkpointing", "autocast") if row[name] == "true"]
    parts += [f"dropout {row['dropout']}"] if float(row["dropout"]) else []
    return ", ".join(parts)


def write_costs(path: Path) -> Path:
    """benchmark.md beside a benchmark.csv. Raises `RecordError`."""
    target = path.with_suffix(".md")
    write_text(target, costs_markdown(read_costs(path)))
    return target


def costs_markdown(rows: Rows) -> str:
    """The report: a short table, then every scenario of training and of inference."""
    where = " · ".join(dict.fromkeys(f"{literal(row['model'])} ({row['dtype']}), {row['device']}" for row in rows))
    versions = ", ".join(
        f"{name} {rows[0][name]}" for name in ("torch", "transformers", "peft", "triton") if rows[0][name]
    )
    marked = any(is_done(row) and row["busy"] == "true" for row in rows)
    marks = ["\\* measured although the machine was busy."] if marked else []
    parts = [f"{where}; {versions}.", short_table(rows), LEGEND, *marks]
    for title, phases in (("Training", ("train",)), ("Inference", ("prefill", "decode"))):
        of_phase = [row for row in rows if row["phase"] in phases]
        if of_phase:
            memory, cell = ("memory above the weights", _memory) if title == "Training" else ("extra memory", _extra)
            parts += [f"## {title}: time", _table(of_phase, _time)]
            if any(row["peak_mib"] for row in of_phase):
                parts += [f"## {title}: {memory}", _table(of_phase, cell)]
    return document("What the methods cost", *parts)


Cell = Callable[[Row], str]


def short_table(rows: Rows) -> str:
    """Plain training steps, `fullest` inference, and the adapter's size: what the README shows."""
    plain = [row for row in rows if row["phase"] == "train" and not _is_special(row)]
    inference = fullest([row for row in rows if row["phase"] != "train"])
    columns = [(f"{words(row)}: time", setting(row), _time) for row in _firsts(plain)]
    columns += [(f"{words(row)}: memory", setting(row), _memory) for row in _firsts(plain) if row["peak_mib"]][:1]
    columns += [(f"{words(row)}: time", setting(row), _time) for row in _firsts(inference)]
    return _columns(rows, columns, size=True)


def setting(row: Row) -> Setting:
    """Which scenario a row belongs to."""
    return tuple(row[column] for column in SETTING)


def fullest(rows: Rows) -> Rows:
    """Of scenarios of one `SITUATION`, the rows of the one that has most variants; the compiled one between equals."""
    kept: dict[tuple[str, ...], Rows] = {}
    for first in _firsts(rows):
        own = [row for row in rows if setting(row) == setting(first)]
        situation = tuple(first[column] for column in SITUATION)
        kept[situation] = max(kept.get(situation, own), own, key=_fullness)
    return [row for own in kept.values() for row in own]


def _fullness(rows: Rows) -> tuple[int, bool]:
    return sum(map(is_done, rows)), any(row["compiled"] == "true" for row in rows)


def _is_special(row: Row) -> bool:
    return row["checkpointing"] == "true" or row["autocast"] == "true" or float(row["dropout"]) > 0


def _table(rows: Rows, cell: Cell) -> str:
    return _columns(rows, [(words(row), setting(row), cell) for row in _firsts(rows)], size=False)


def _firsts(rows: Rows) -> Rows:
    """One row of every scenario: it says what the scenario is."""
    return list({setting(row): row for row in reversed(rows)}.values())[::-1]


def _columns(rows: Rows, columns: list[tuple[str, Setting, Cell]], *, size: bool) -> str:
    most = max((int(row["layers"]) for row in rows if row["adapter_file_bytes"]), default=0)
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = {setting(row): row for row in rows if row["variant"] == variant}
        cells = [cell(own[where]) if where in own else EMPTY for _, where, cell in columns]
        any_row = next(iter(own.values()))
        dtype = next((row["adapter_dtype"] for row in own.values() if row["adapter_dtype"]), "") or EMPTY
        file = next((row["adapter_file_bytes"] for row in own.values() if row["layers"] == str(most)), "")
        sizes = [f"{float(file) / MIB:.1f}" if file else EMPTY] if size else []
        if any(cell != EMPTY for cell in cells):
            lines.append([variant_label(any_row), dtype, *cells, *sizes])
    headings = [*HEAD, *(heading for heading, _, _ in columns), *([f"file, {most} layers (MiB)"] if size else [])]
    return pipes(headings, lines)


def _time(row: Row) -> str:
    return _number(row, "ratio", lambda: f"{float(row['median_ms']):.3g} ms")


def _memory(row: Row) -> str:
    return _number(row, "memory_ratio", lambda: f"{float(row['peak_above_weights_mib']):,.0f} MiB")


def _extra(row: Row) -> str:
    if not is_done(row) or not row["extra_mib"]:
        return NOT_MEASURED.get(row["status"], EMPTY)
    value = float(row["extra_mib"])
    return (f"{float(row['peak_mib']):,.0f} MiB" if row["trainable"] == "0" else f"{value:+,.0f} MiB") + _star(row)


def _number(row: Row, column: str, absolute: Callable[[], str]) -> str:
    """The ratio, or of the base itself, which trains nothing, the number that others are divided by."""
    if not is_done(row) or not row[column]:
        return NOT_MEASURED.get(row["status"], EMPTY)
    return (absolute() if row["trainable"] == "0" else f"{float(row[column]):.3f}") + _star(row)


def _star(row: Row) -> str:
    return "\\*" if row["busy"] == "true" else ""
