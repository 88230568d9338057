"""Runs → metrics.csv, one row per run x benchmark x metric. Always a full rebuild, and always the same bytes.

Values and intervals are in the unit that ``measure`` names. A run that is not done is a row with its state and no
value: failures are data.
"""

import contextlib
import csv
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.records import RecordError, Run, find_runs, write_text
from reproduction.report.scores import read_scores

COLUMNS = (
    "scale", "run", "model", "model_label", "method", "method_label", "data", "seed",
    "benchmark", "metric", "measure", "value", "ci_low", "ci_high", "items", "samples", "unit",
    "parameters_trainable", "parameters_router", "parameters_total", "frozen_copies",
    "params_pct_paper", "params_pct_plain", "status", "protocol", "protocol_name",
)  # fmt: skip

PARTS = ("model", "method", "data")
"""Of a run's config, what its rows are named after."""

DAMAGED = "damaged"

log = logging.getLogger(__name__)


def collect_metrics(runs: Path, out: Path, *, scale: str) -> list[dict[str, Any]]:
    """Write the tidy table of `metric_rows` to ``out``; returns its rows."""
    rows = metric_rows(runs, scale=scale)
    write_csv(out, COLUMNS, rows)
    return rows


def metric_rows(runs: Path, *, scale: str) -> list[dict[str, Any]]:
    """Read every run under ``runs``: the rows of the tidy table.

    A run of another scale is left out and named in the log. One that cannot be read is told there, and is a row of the
    status `DAMAGED`; the others are read all the same.
    Leaves out: choosing among several protocols of a benchmark; each is a row of its own, told apart by ``protocol``
    (the evaluation's folder) and, for people, ``protocol_name``.
    """
    wanted, damaged = readable_runs(runs, scale=scale)
    if others := sorted({run.name for run in find_runs(runs)} - {run.name for run in wanted} - damaged.keys()):
        log.warning("left out of the scale %r: %s", scale, ", ".join(others))
    rows = {}
    for run in wanted:
        try:
            with usable(run):
                rows[run.name] = run_rows(run)
        except RecordError as error:
            damaged[run.name] = str(error)
    for name, why in damaged.items():
        log.error("%s is left out of metrics.csv: %s", name, why)
        rows[name] = [{"scale": scale, "run": name, "status": DAMAGED}]
    return [row for name in sorted(rows) for row in rows[name]]


@contextlib.contextmanager
def usable(run: Run) -> Iterator[None]:
    """Tells what a value of a run's records gives rise to, which is no such value as we write, as a `RecordError`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise RecordError(
            f"a record in {run.folder} holds a value that cannot be used ({type(error).__name__}: {error}); delete "
            "that folder and run the cell again"
        ) from error


def readable_runs(runs: Path, *, scale: str) -> tuple[list[Run], dict[str, str]]:
    """The runs of a scale under ``runs``, sorted by name, and why others cannot be read: their config or status."""
    found, damaged = [], {}
    for run in find_runs(runs):
        try:
            config = run.config
            if config.get("scale") != scale:
                continue
            if lacking := [part for part in PARTS if not isinstance(config.get(part), Mapping)]:
                raise RecordError(
                    f"{run.folder / 'config.json'} lacks {', '.join(lacking)}; delete its folder and run the cell again"
                )
            _require_status(run)
            found.append(run)
        except RecordError as error:
            damaged[run.name] = str(error)
    return found, damaged


def _require_status(run: Run) -> None:
    """Raise `RecordError` where the status cannot be read."""
    _ = run.status


def run_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of one run."""
    config = run.config
    trained = config["method"]["kind"] != "none"
    common = {
        "scale": config["scale"],
        "run": run.name,
        "model": config["model"]["name"],
        "model_label": label(config["model"]),
        "method": config["method"]["name"],
        "method_label": label(config["method"]),
        "data": config["data"]["name"] if trained else "",
        "seed": config["seed"] if trained else "",
        "status": run.state or "never started",
    }
    if not run.done:
        return [common]
    common |= parameter_figures(run)
    rows = []
    for evaluation in run.evaluations():
        for metric, scores in read_scores(evaluation).items():
            written = scores.measure.written
            low, high = scores.interval
            rows.append(common | {
                "benchmark": evaluation.benchmark,
                "metric": metric,
                "value": written(scores.mean),
                "ci_low": written(low),
                "ci_high": written(high),
                "measure": scores.measure.unit,
                "items": len(scores.values),
                "samples": scores.samples,
                "unit": scores.unit,
                "protocol": evaluation.name,
                "protocol_name": evaluation.protocol.get("name", ""),
            })  # fmt: skip
    return rows or [common]


def parameter_figures(run: Run) -> dict[str, Any]:
    """Trainable, router and total parameters, frozen copies, and the two percentages.

    ``params_pct_paper`` = 100 · trainable / (base + trainable + frozen copies), the convention behind the paper's
    column; ``params_pct_plain`` = 100 · trainable / (base + trainable). Full fine-tuning is 100 and the untuned base 0.
    Raises `RecordError` where resources.json lacks a count.
    """
    resources, kind = run.resources, run.config["method"]["kind"]
    if kind == "none":
        total = resources.get("parameters_total", "")
        counts = {"parameters_trainable": 0, "parameters_router": 0, "parameters_total": total, "frozen_copies": 0}
        return counts | {"params_pct_paper": 0.0, "params_pct_plain": 0.0}
    names = ("parameters_trainable", "parameters_router", "parameters_total", "frozen_copies")
    if missing := [name for name in names if not isinstance(resources.get(name), int)]:
        raise RecordError(f"{run.folder}/resources.json lacks {', '.join(missing)}; delete the run and train it again")
    return {name: resources[name] for name in names} | params_percentages(resources)


def params_percentages(counts: Mapping[str, int]) -> dict[str, float]:
    """``params_pct_paper`` and ``params_pct_plain`` of a model that something is trained in; see `parameter_figures`.

    ``counts`` has parameters_trainable, parameters_total (of base and adapter together) and frozen_copies.
    """
    trainable, total = counts["parameters_trainable"], counts["parameters_total"]
    return {
        "params_pct_paper": round(100 * trainable / (total + counts["frozen_copies"]), 6),
        "params_pct_plain": round(100 * trainable / total, 6),
    }


def label(part: Mapping[str, Any]) -> str:
    """What a part of the config calls itself in a table."""
    return part.get("label") or part["name"]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV with Unix line ends, atomically; a row's missing column is empty, an unknown one an error."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
