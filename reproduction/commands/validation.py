"""Comparison of untuned bases with their published scores, before hours are spent on tuning them.

A base whose score is far from the published one under the same protocol is loaded, prompted or scored wrongly, and so
is every method on it. Published scores and tolerances are in experiments/validation/published.csv. A scale without
rows there is compared with its committed reference, results/reference/<scale>/metrics.csv.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reproduction.cells.cell import Cell, distinct
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.nearest import did_you_mean
from reproduction.cells.override import override
from reproduction.cli import NotComplete
from reproduction.commands.tables import forwarded
from reproduction.paths import CONFIGS, EXPERIMENTS, REPOSITORY
from reproduction.records import Evaluation, RecordError
from reproduction.report.documents import read_csv, write_csv
from reproduction.report.measures import PERCENT, measure_of
from reproduction.report.reference import reference_folder
from reproduction.report.scores import read_scores

log = logging.getLogger(__name__)

BASE = "base"
"""Method of configs/method that trains nothing."""

PUBLISHED = EXPERIMENTS / "validation" / "published.csv"
COLUMNS = (
    "model", "benchmark", "protocol", "metric", "published", "score", "ci_low", "ci_high", "items", "difference",
    "tolerance", "verdict", "source", "note",
)  # fmt: skip

WITHIN, OUTSIDE, MISSING = "within", "outside", "missing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """A published score of an untuned base, in percent, and ours with its 95 % interval, None if missing.

    ``note`` says how the published protocol differs from that of configs/eval.
    """

    model: str
    benchmark: str
    protocol: str
    metric: str
    published: float
    tolerance: float
    source: str
    note: str = ""
    score: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    items: int = 0

    @property
    def asked(self) -> tuple[str, str, str]:
        """(model, benchmark, protocol)."""
        return self.model, self.benchmark, self.protocol

    @property
    def difference(self) -> float | None:
        return None if self.score is None else self.score - self.published

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return MISSING
        return WITHIN if abs(self.difference) <= self.tolerance else OUTSIDE


def asked_rows(values: Mapping[str, Any]) -> tuple[list[Checked], list[Cell]]:
    """Return the scores that the resolved configs/validate.yaml requests, and the cells that evaluate them."""
    rows = published_at(values["scale"], tolerance=values["tolerance"])
    rows = chosen(rows, models=values["models"], benchmarks=values["benchmarks"])
    return rows, base_cells(rows, scale=values["scale"], overrides=forwarded(values))


def published_at(scale: str, *, tolerance: float) -> list[Checked]:
    """Return the published scores of a scale's bases, else those of the committed reference with this `tolerance`.

    Raises `ConfigError` if there is neither.
    """
    if own := [row for row in read_csv(PUBLISHED) if row.pop("scale") == scale]:
        numbers = ("published", "tolerance")
        return [Checked(**row | {name: float(row[name]) for name in numbers}) for row in own]
    reference = reference_folder(REPOSITORY / "results", scale) / "metrics.csv"
    rows = [row for row in read_csv(reference) if row["method"] == BASE and row["benchmark"]]
    rows = [row for row in rows if measure_of(row["metric"]) is PERCENT]  # a loss has no tolerance in points
    if not rows:
        lacks = "has no scores of them" if reference.is_file() else "is not there"
        raise ConfigError(
            f"nothing is published of the bases at scale={scale}: {PUBLISHED} has no row, {reference} {lacks}"
        )
    source = str(reference.relative_to(REPOSITORY))
    return [
        Checked(
            **{name: row[name] for name in ("model", "benchmark", "metric")},
            protocol=row["protocol_name"],
            published=float(row["value"]),
            tolerance=tolerance,
            source=source,
        )
        for row in rows
    ]


def chosen(rows: Iterable[Checked], **asked: Sequence[str] | None) -> list[Checked]:
    """Return the rows of the requested models and benchmarks (``models=[…]``, ``benchmarks=[…]``); None is all."""
    rows = list(rows)
    for key, names in asked.items():
        known = {getattr(row, key.removesuffix("s")) for row in rows}
        if unknown := [name for name in names or () if name not in known]:
            raise ConfigError(
                f"{key}={unknown[0]} has no published score here; {did_you_mean(unknown[0], sorted(known))}"
            )
        rows = [row for row in rows if names is None or getattr(row, key.removesuffix("s")) in names]
    return rows


def base_cells(rows: Sequence[Checked], *, scale: str, overrides: Sequence[str]) -> list[Cell]:
    """Return one cell for each base of the rows, with exactly the protocols that they name.

    Raises `ConfigError` if no experiment has a row's base and protocol at this scale.
    """
    named = override("protocol", sorted({row.protocol for row in rows}))
    experiments = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    whole = distinct(compose_cell(e, BASE, scale=scale, seed=0, overrides=[*overrides, named]) for e in experiments)
    asked = {row.asked for row in rows}
    cells = []
    for cell in whole:
        if own := tuple(p for p in cell.protocols if (cell.model.name, p.benchmark, p.name) in asked):
            cells.append(dataclasses.replace(cell, protocols=own))
    if lost := sorted(asked - {(cell.model.name, p.benchmark, p.name) for cell in cells for p in cell.protocols}):
        raise ConfigError(f"no experiment at scale={scale} evaluates {lost[0][0]} on {lost[0][1]} ({lost[0][2]})")
    return cells


def check(rows: Sequence[Checked], cells: Sequence[Cell]) -> list[Checked]:
    """Return each published score with ours, from the records of the cells' finished evaluations."""
    scores: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for cell in cells:
        waiting = cell.eval_job.waiting
        for protocol in (protocol for protocol in cell.protocols if protocol not in waiting):
            try:
                found = read_scores(Evaluation(cell.eval_job.eval_folder(protocol)))
                scores[cell.model.name, protocol.benchmark, protocol.name] = found
            except RecordError as error:
                log.error("%s", error)
    return [_with_score(row, scores.get(row.asked, {}).get(row.metric)) for row in rows]


def _with_score(row: Checked, ours: Any) -> Checked:
    if ours is None:
        return row
    score, low, high = map(ours.measure.written, (ours.mean, *ours.interval))
    return dataclasses.replace(row, score=score, ci_low=low, ci_high=high, items=len(ours.values))


def write(checked: Sequence[Checked], path: Path) -> None:
    """Write validation.csv, a row for each published score."""
    rows = [dataclasses.asdict(row) | {"difference": row.difference, "verdict": row.verdict} for row in checked]
    write_csv(path, COLUMNS, rows)


def require_within(checked: Sequence[Checked], failed: Mapping[str, str]) -> None:
    """Raise `NotComplete` if scores are outside their tolerance or missing, or evaluations failed."""
    counts = Counter(row.verdict for row in checked)
    lines = [f"failed: {title}: {reason}" for title, reason in failed.items()]
    advice = {
        OUTSIDE: "see to the base's files, prompts and scoring",
        MISSING: "the same command goes on with them",
    }
    lines += [f"{counts[v]} of {len(checked)} scores are {v}: {advice[v]}" for v in advice if counts[v]]
    if lines:
        raise NotComplete("\n".join(lines))


def show(checked: Sequence[Checked], console: Console) -> None:
    """Print the scores as one table."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "benchmark", "published", "ours [95 %]", "difference", "allowed", "verdict"):
        words = heading in ("model", "benchmark", "verdict")
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for row in checked:
        ours = difference = "—"
        if row.score is not None:
            ours, difference = f"{row.score:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]", f"{row.difference:+.1f}"
        asked = f"{row.benchmark} {row.metric} ({row.protocol})"
        table.add_row(row.model, asked, f"{row.published:.1f}", ours, difference, f"±{row.tolerance:.1f}", row.verdict)
    console.print(table)
