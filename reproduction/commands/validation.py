"""Untuned bases held against their published scores, before hours are spent on tuning them.

A base whose score is far from the published one under the same protocol was loaded, prompted or scored wrongly, and so
would be every method on it. What is published, and how near a score must come, is experiments/validation/published.csv.
A scale without rows there is held against the scores of its committed reference, results/reference/<scale>/metrics.csv.
"""

import csv
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
from reproduction.cells.override import override
from reproduction.paths import CONFIGS, EXPERIMENTS, REPOSITORY
from reproduction.records import Evaluation, RecordError
from reproduction.report.collect import write_csv
from reproduction.report.measures import PERCENT, measure_of
from reproduction.report.reference import reference_folder
from reproduction.report.scores import read_scores

log = logging.getLogger(__name__)

BASE = "base"
"""The method of configs/method that trains nothing."""

PUBLISHED = EXPERIMENTS / "validation" / "published.csv"
COLUMNS = (
    "model", "benchmark", "protocol", "metric", "published", "score", "ci_low", "ci_high", "items", "difference",
    "tolerance", "verdict", "source", "note",
)  # fmt: skip

WITHIN, OUTSIDE, MISSING = "within", "outside", "missing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A score of an untuned base, in percent, under a protocol of configs/eval; `note` says how theirs differed."""

    model: str
    benchmark: str
    protocol: str
    metric: str
    published: float
    tolerance: float
    source: str
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """A published score and ours with its 95 % interval, None where there is none; `verdict` is a word of three."""

    published: Published
    score: float | None = None
    low: float | None = None
    high: float | None = None
    items: int = 0

    @property
    def difference(self) -> float | None:
        return None if self.score is None else self.score - self.published.published

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return MISSING
        return WITHIN if abs(self.difference) <= self.published.tolerance else OUTSIDE


def published_at(scale: str, *, tolerance: float) -> list[Published]:
    """What is published of a scale's bases; else the scores of the committed reference, `tolerance` points around them.

    Losses are left out. Raises `ConfigError` where there is neither.
    """
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        own = [row for row in csv.DictReader(file) if row.pop("scale") == scale]
    if own:
        return [
            Published(**row | {"published": float(row["published"]), "tolerance": float(row["tolerance"])})
            for row in own
        ]
    reference = reference_folder(REPOSITORY / "results", scale) / "metrics.csv"
    rows = []
    if reference.is_file():
        with reference.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] == BASE and row["benchmark"]]
    rows = [row for row in rows if measure_of(row["metric"]) is PERCENT]  # a loss has no points to be near by
    if not rows:
        lacks = "has no scores of them" if reference.is_file() else "is not there"
        raise ConfigError(
            f"nothing is published of the bases at scale={scale}: {PUBLISHED} has no row, {reference} {lacks}"
        )
    return [
        Published(
            model=row["model"],
            benchmark=row["benchmark"],
            protocol=row["protocol_name"],
            metric=row["metric"],
            published=float(row["value"]),
            tolerance=tolerance,
            source=str(reference.relative_to(REPOSITORY)),
        )
        for row in rows
    ]


def chosen(rows: Iterable[Published], **asked: Sequence[str] | None) -> list[Published]:
    """The rows of the models and benchmarks asked for by ``models=[…]``, ``benchmarks=[…]``; None is all of them.

    Raises `ConfigError` for a name that none of the rows has.
    """
    rows = list(rows)
    for key, names in asked.items():
        known = {getattr(row, key.removesuffix("s")) for row in rows}
        if unknown := [name for name in names or () if name not in known]:
            raise ConfigError(f"{key}={unknown[0]} has no published score here; there are {', '.join(sorted(known))}")
        rows = [row for row in rows if names is None or getattr(row, key.removesuffix("s")) in names]
    return rows


def base_cells(rows: Sequence[Published], *, scale: str, overrides: Sequence[str]) -> list[Cell]:
    """One cell for each base of the rows, with exactly the protocols that they name.

    Raises `ConfigError` where no experiment has a row's base and protocol at this scale.
    """
    named = override("protocol", sorted({row.protocol for row in rows}))
    experiments = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    whole = distinct(
        compose_cell(experiment, BASE, scale=scale, seed=0, overrides=[*overrides, named]) for experiment in experiments
    )
    asked = {(row.model, row.benchmark, row.protocol) for row in rows}
    cells, found = [], set()
    for cell in whole:
        kept = [p for p in cell.protocols if (cell.model.name, p.benchmark, p.name) in asked]
        found |= {(cell.model.name, p.benchmark, p.name) for p in kept}
        if kept:
            cells.append(dataclasses.replace(cell, protocols=tuple(kept)))
    if lost := sorted(asked - found):
        raise ConfigError(f"no experiment at scale={scale} evaluates {lost[0][0]} on {lost[0][1]} ({lost[0][2]})")
    return cells


def check(rows: Sequence[Published], cells: Sequence[Cell]) -> list[Checked]:
    """Each published score beside ours, from the records of the cells' finished evaluations."""
    folders = {(c.model.name, p.benchmark, p.name): c.eval_job.eval_folder(p) for c in cells for p in c.protocols}
    waiting = {(c.model.name, p.benchmark, p.name) for c in cells for p in c.eval_job.waiting}
    scores: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    checked = []
    for row in rows:
        key = (row.model, row.benchmark, row.protocol)
        if key not in waiting and key not in scores:
            try:
                scores[key] = read_scores(Evaluation(folders[key]))
            except RecordError as error:
                log.error("%s", error)
                scores[key] = {}
        ours = scores.get(key, {}).get(row.metric)
        if ours is None:
            checked.append(Checked(published=row))
            continue
        score, low, high = map(ours.measure.written, (ours.mean, *ours.interval))
        checked.append(Checked(published=row, score=score, low=low, high=high, items=len(ours.values)))
    return checked


def write(checked: Sequence[Checked], path: Path) -> None:
    """Write validation.csv, a row for each published score."""
    write_csv(path, COLUMNS, (
        dataclasses.asdict(each.published)
        | {"score": each.score, "ci_low": each.low, "ci_high": each.high, "items": each.items}
        | {"difference": each.difference, "verdict": each.verdict}
        for each in checked
    ))  # fmt: skip


def summary(checked: Sequence[Checked], failed: Mapping[str, str]) -> str | None:
    """What is wrong, in sentences: scores outside, scores missing, evaluations that failed; None where nothing is."""
    counts = Counter(each.verdict for each in checked)
    lines = [f"failed: {title}: {reason}" for title, reason in failed.items()]
    if counts[OUTSIDE]:
        lines.append(
            f"{counts[OUTSIDE]} of {len(checked)} scores are outside: see to the base's files, prompts and scoring"
        )
    if counts[MISSING]:
        lines.append(f"{counts[MISSING]} of {len(checked)} scores are missing: the same command goes on with them")
    return "\n".join(lines) or None


def show(checked: Sequence[Checked], console: Console) -> None:
    """Print them as one table."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "benchmark", "published", "ours [95 %]", "difference", "allowed", "verdict"):
        words = heading in ("model", "benchmark", "verdict")
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for each in checked:
        row = each.published
        ours, difference = "—", "—"
        if each.score is not None:
            ours = f"{each.score:.1f} [{each.low:.1f}, {each.high:.1f}]"
            difference = f"{each.difference:+.1f}"
        asked = f"{row.benchmark} {row.metric} ({row.protocol})"
        table.add_row(row.model, asked, f"{row.published:.1f}", ours, difference, f"±{row.tolerance:.1f}", each.verdict)
    console.print(table)
