"""Writes metrics.csv with one row per run x benchmark x metric. Each write is a deterministic full rebuild.

Values and intervals are in the unit that ``measure`` names. A run that is not done has one row with its state only.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reproduction.records import RecordError, Run, find_runs
from reproduction.report.documents import write_csv
from reproduction.report.scores import read_scores

COLUMNS = (
    "scale", "run", "model", "model_label", "method", "method_label", "data", "seed",
    "benchmark", "metric", "measure", "value", "ci_low", "ci_high", "items", "samples", "unit",
    "parameters_trainable", "parameters_router", "parameters_total", "frozen_copies",
    "params_pct_paper", "params_pct_plain", "status", "protocol", "protocol_name",
)  # fmt: skip
COUNTS = ("parameters_trainable", "parameters_router", "parameters_total", "frozen_copies")
DAMAGED = "damaged"

log = logging.getLogger(__name__)


def collect_metrics(runs: Path, out: Path, *, scale: str) -> list[dict[str, Any]]:
    """Write `metric_rows` to ``out`` and return them."""
    rows = metric_rows(runs, scale=scale)
    write_csv(out, COLUMNS, rows)
    return rows


def metric_rows(runs: Path, *, scale: str) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv for every run under ``runs``.

    Runs of another scale are left out with a warning. An unreadable run is logged, and its row has the status
    `DAMAGED`.
    """
    readable, damaged = readable_runs(runs, scale=scale)
    if others := sorted({run.name for run in find_runs(runs)} - {run.name for run in readable} - damaged.keys()):
        log.warning("left out of the scale %r: %s", scale, ", ".join(others))
    rows = {}
    for run in readable:
        try:
            with usable(run):
                rows[run.name] = _run_rows(run)
        except RecordError as error:
            damaged[run.name] = str(error)
    for name, why in damaged.items():
        log.error("%s is left out of metrics.csv: %s", name, why)
        rows[name] = [{"scale": scale, "run": name, "status": DAMAGED}]
    return [row for name in sorted(rows) for row in rows[name]]


@contextlib.contextmanager
def usable(run: Run) -> Iterator[None]:
    """Convert the error of an unusable value in a run's records to a `RecordError`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise RecordError(
            f"a record in {run.folder} holds a value that cannot be used ({type(error).__name__}: {error}); delete "
            "that folder and run the cell again"
        ) from error


def readable_runs(runs: Path, *, scale: str) -> tuple[list[Run], dict[str, str]]:
    """Return the runs of a scale, sorted by name, and name → error of those with an unreadable config or status."""
    found, damaged = [], {}
    for run in find_runs(runs):
        try:
            config = run.config
            if config.get("scale") != scale:
                continue
            if lacking := [part for part in ("model", "method", "data") if not isinstance(config.get(part), Mapping)]:
                raise RecordError(
                    f"{run.folder / 'config.json'} lacks {', '.join(lacking)}; delete its folder and run the cell again"
                )
            _ = run.status  # raises if the status cannot be read
            found.append(run)
        except RecordError as error:
            damaged[run.name] = str(error)
    return found, damaged


def _run_rows(run: Run) -> list[dict[str, Any]]:
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
            value, low, high = map(scores.measure.written, (scores.mean, *scores.interval))
            rows.append(common | {
                "benchmark": evaluation.benchmark,
                "metric": metric,
                "value": value,
                "ci_low": low,
                "ci_high": high,
                "measure": scores.measure.unit,
                "items": len(scores.values),
                "samples": scores.samples,
                "unit": scores.unit,
                "protocol": evaluation.name,
                "protocol_name": evaluation.protocol.get("name", ""),
            })  # fmt: skip
    return rows or [common]


def parameter_figures(run: Run) -> dict[str, Any]:
    """Return the `COUNTS` of a run and their `params_percentages`; an untuned base trains 0 %.

    Raises `RecordError` if resources.json lacks a count.
    """
    resources = run.resources
    if run.config["method"]["kind"] == "none":
        counts = dict.fromkeys(COUNTS, 0) | {"parameters_total": resources.get("parameters_total", "")}
        return counts | {"params_pct_paper": 0.0, "params_pct_plain": 0.0}
    if missing := [name for name in COUNTS if not isinstance(resources.get(name), int)]:
        raise RecordError(f"{run.folder}/resources.json lacks {', '.join(missing)}; delete the run and train it again")
    return {name: resources[name] for name in COUNTS} | params_percentages(resources)


def params_percentages(counts: Mapping[str, int]) -> dict[str, float]:
    """Return ``params_pct_paper`` = 100 · trainable / (base + trainable + frozen copies), the convention of the paper,
    and ``params_pct_plain`` = 100 · trainable / (base + trainable), from a mapping with the `COUNTS`.
    """
    trainable, total = counts["parameters_trainable"], counts["parameters_total"]
    return {
        "params_pct_paper": round(100 * trainable / (total + counts["frozen_copies"]), 6),
        "params_pct_plain": round(100 * trainable / total, 6),
    }


def label(part: Mapping[str, Any]) -> str:
    """Return the table label of a part of the config."""
    return part.get("label") or part["name"]
