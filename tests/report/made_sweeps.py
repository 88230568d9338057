"""Made-up Tables 1, 7 and 8 of the small scale, in the format of real ones, with plausible numbers."""

import csv
from itertools import combinations
from pathlib import Path

from made_rates import LABELS, LOSS_WIDTH, SCORE_WIDTH, SOURCES, tests_of
from made_results import write

SINGLE_LOSSES = {
    "fft": 0.69, "lora": 0.71, "dora": 0.7105, "hydralora": 0.72, "idlora": 0.73,
}  # fmt: skip
"""Losses of Table 1's methods, the same on every source."""
SINGLE_SOURCES = ("loss_gsm8k", "loss_gsm8k_test", "loss_codealpaca", "loss_humaneval", "loss_saferpaca", "loss_alpaca")
SINGLE_SCORES = {
    "gsm8k": 4.0, "pass@1": 5.0, "pass@5": 9.0, "pass@10": 12.0, "refusal": 80.0, "harmless": 1.0,
}  # fmt: skip
KNOWN = {"the data's own answers": (70.0, 0.5), "always refusing": (100.0, 100.0), "never refusing": (0.0, 0.0)}

BUDGETS = {
    # trained parameters, mean held-out loss
    "lora_sixteenth": (305_280, 0.88), "lora_eighth": (610_560, 0.87), "lora_quarter": (1_221_120, 0.86),
    "lora_half": (1_831_680, 0.85), "lora": (3_052_800, 0.845), "lora_double": (6_105_600, 0.84),
    "idlora_quarter": (910_080, 0.872), "idlora_half": (1_221_120, 0.866), "idlora": (1_843_200, 0.858),
    "idlora_double": (2_465_280, 0.853),
}  # fmt: skip
PARTNERS = {
    "idlora_quarter": "lora_eighth", "idlora_half": "lora_quarter", "idlora": "lora_half", "idlora_double": "lora",
}  # fmt: skip
CLUSTERS = {
    "idlora_k2": ("k = 2, r=32", 0.859), "idlora_k3": ("k = 3, r=32", 0.8583), "idlora": ("k = 4, r=32", 0.858),
    "idlora_half_k2": ("k = 2, r=16", 0.869), "idlora_half": ("k = 4, r=16", 0.866),
    "idlora_half_k6": ("k = 6, r=16", 0.8655), "idlora_half_k8": ("k = 8, r=16", 0.87),
}  # fmt: skip
BASE = {"base_label": "SmolLM2-135M-Instruct (from 4 bits)"}


def make_single(
    results: Path,
    *,
    losses: dict[str, dict[str, float]] | None = None,
    scores: dict[str, dict[str, dict[str, float]]] | None = None,
    seeds: int = 3,
    split: tuple[str, ...] = (),
) -> None:
    """Write Table 1, its tests, scores of known answers, and trials of a hundred steps; ``losses`` by block and
    ``scores`` by block and column override the defaults. The seeds of ``split`` methods disagree.
    """
    rows, tests = [], []
    for base, own_seeds in {"llama3": seeds, "llama3_paper_rate": 1}.items():
        own = SINGLE_LOSSES | (losses or {}).get(base, {})
        changed = (scores or {}).get(base, {})
        values = dict.fromkeys(SINGLE_SOURCES, own)
        values |= {column: dict.fromkeys(own, v) | changed.get(column, {}) for column, v in SINGLE_SCORES.items()}
        for method in ("base", *own):
            printed = {column: f"{each.get(method, 0):.1f}" for column, each in values.items()}
            names = {"base": base, "method": method, "method_label": {"base": "Base (untuned)"} | LABELS}
            names["method_label"] = names["method_label"].get(method, method)
            rows.append(BASE | names | {"seeds": own_seeds, "parameters_trainable": 1} | printed)
        for column, each in values.items():
            metric = "nats_per_token" if column in SINGLE_SOURCES else "strict"
            tests += _named(base, "lora", column, each, seeds=own_seeds, metric=metric, split=split)
    folder = results / "reference" / "small"
    write(folder / "tables" / "table1.csv", rows)
    write(folder / "significance" / "table1.csv", tests)
    known = [
        {"column": column, "answers": answers, "value": value}
        for answers, both in KNOWN.items()
        for column, value in zip(("refusal", "harmless"), both, strict=True)
    ]
    write(folder / "tables" / "table1_known.csv", known)
    path = results.parent / "experiments" / "tuning" / "small" / "trials.csv"
    trials = list(csv.DictReader(path.open(encoding="utf-8")))
    write(path, [*trials, trials[0] | {"experiment": "gsm8k_llama3", "steps": 100}])


def make_budgets(results: Path, *, seeds: int = 3, split: tuple[str, ...] = (), **losses: float) -> None:
    """Write Table 7 with all its pairs and equal sources; ``losses`` by method override the defaults. The seeds of
    ``split`` methods disagree.
    """
    values = {method: losses.get(method, loss) for method, (_, loss) in BUDGETS.items()}
    counts = {method: count for method, (count, _) in BUDGETS.items()}
    tests = [
        test
        for method, partner in PARTNERS.items()
        for column in SOURCES
        for test in _named("llama3", partner, column, {method: values[method], partner: values[partner]})
    ]
    named = {"base": "llama3", "seeds": seeds, "split": split}
    _sweep(results, "table7", "budgets", values=values, counts=counts, tests=tests, named=named)


def make_clusters(results: Path, **losses: float) -> None:
    """Write Table 8 with all its pairs and equal sources; ``losses`` by method override the defaults."""
    values = {method: losses.get(method, loss) for method, (_, loss) in CLUSTERS.items()}
    counts = {method: 1_100_000 + 10_000 * place for place, method in enumerate(values)}
    tests = []
    for method in values.keys() - {"idlora"}:
        reference = "idlora_half" if method.startswith("idlora_half_") else "idlora"
        for column in SOURCES:
            of_two = {method: values[method], reference: values[reference]}
            tests += _named("llama3_2_3b", reference, column, of_two)
    _sweep(results, "table8", "clusters", values=values, counts=counts, tests=tests, named={"base": "llama3_2_3b"})


def _sweep(
    results: Path, table: str, pairs: str, *, values: dict[str, float], counts: dict[str, int], tests: list, named: dict
) -> None:
    folder = results / "reference" / "small"
    labels = {method: label for method, (label, _) in CLUSTERS.items()} if table == "table8" else {}
    rows = [
        {"base": named["base"], "method": method, "method_label": labels.get(method, method), "seeds": 3}
        | {"parameters_trainable": counts[method], "loss": f"{value:.4f}"}
        for method, value in values.items()
    ]
    write(folder / "tables" / f"{table}.csv", [BASE | row for row in rows])
    write(folder / "significance" / f"{table}.csv", tests)
    every = combinations(values, 2)
    of_pairs = [
        _named(reference=other, column="loss", values={one: values[one], other: values[other]}, **named)
        for one, other in every
    ]
    write(folder / "tables" / f"{pairs}.csv", [test for own in of_pairs for test in own])


def _named(
    base: str,
    reference: str,
    column: str,
    values: dict[str, float],
    *,
    seeds: int = 3,
    metric: str = "nats_per_token",
    split: tuple[str, ...] = (),
) -> list[dict]:
    width = LOSS_WIDTH if metric == "nats_per_token" else SCORE_WIDTH
    named = {"base": base, "reference": reference, "column": column, "metric": metric, "floor": "", "seeds": seeds}
    tests = tests_of(values, reference, widths={"": width}, over_seeds=seeds > 1)
    ahead = {test["method"]: "" if seeds == 1 else 1 if test["method"] in split else seeds for test in tests}
    return [named | test | {"seeds_ahead": ahead[test["method"]]} for test in tests]


def drop_pairs(path: Path, method: str) -> None:
    """Remove a method from a file of all pairs."""
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    write(path, [row for row in rows if method not in (row["method"], row["reference"])])
