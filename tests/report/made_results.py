"""Results as the other commands leave them, for every grid of the project, with numbers made up from a fixed seed."""

import csv
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from idlora.report.grid import Column, Grid, kind_of, load_grid
from idlora.report.ordering import VERDICTS

TABLES = ("table1", "table2", "table3", "table7", "table8", "table_controls")
SIZES = {"LLaMA-3-8B": 8_030_261_248, "Mistral-7B": 7_241_732_096, "LLaMA-3.2-3B": 3_212_749_824}
FACTORS = {"lora": 2.6e6, "dora": 2.7e6, "hydralora": 5.5e6, "moelora": 1.05e7, "idlora": 4e5}
TEST = {
    "samples": 1, "seeds": 3, "value": 50, "reference_value": 50, "rank_biserial": 0.1, "nonzero": 40, "wins": 22,
    "losses": 18, "wilcoxon_statistic": 9, "wilcoxon_p": 0.04, "wilcoxon_method": "exact", "zero_method": "wilcox",
    "mcnemar_p": 0.05, "holm_p": 0.4, "family": "of a table", "family_size": 25, "smallest_p": 1e-9,
    "detectable_difference": 9.1, "dagger": "", "note": "",
}  # fmt: skip
REPORT = """# {title}

All of it agrees. `Code` & <b>markup</b>.

| Model | Method | # params |
| --- | --- | ---: |
| 1 | 2 | 3.14 |

- Values are percent with 95% intervals.
"""
REST = """
## The paper's numbers

shown in a block of its own

## Missing

- multitask_llama3, LoRA, seed 0 (never run): `make it`
"""
CLAIM = (
    "id", "section", "claim_kind", "quote", "verdict", "expression", "paper_value", "note", "ours", "ours_scale",
    "ours_verdict",
)  # fmt: skip
CLAIMS = (
    ("a1", "Abstract", "number", "46 % fewer <script>", "does not hold", "1 - a/b < 0.54", "0.416", "", "", "", ""),
    ("b1", "§5.2", "ordering", 'ahead of "all"', "holds", "max(x) == y", "yes", "a note", "no", "tiny", "opposite"),
    ("b2", "§5.3", "ordering", "large gains", "cannot be decided from the tables", "", "", "", "", "", ""),
)
THEORY = """# Theory

In this folder.

## Theorem 1: clustered

### The gap grows

![a point](figures/rows.png)

| a | b |
| --- | ---: |
| x | 1 |
"""


def make_results(repository: Path, root: Path, *, scale: str = "tiny") -> tuple[Path, Path]:
    """(results, experiments) under ``root``: every file that the page shows, but provenance and pivots."""
    results, experiments = root / "results", root / "experiments"
    shutil.copytree(repository / "experiments", experiments)
    rng = np.random.default_rng(0)
    for name in TABLES:
        make_table(load_grid(experiments / name), results / scale, scale=scale, rng=rng)
    make_counts(results / "counts", load_grid(experiments / "table7"))
    make_audit(results / "audit")
    make_theory(results / "theory")
    return results, experiments


def make_table(grid: Grid, own: Path, *, scale: str, rng: np.random.Generator) -> None:
    rows, tests = [], []
    for (base, words), method in product(grid.bases.items(), grid.methods):
        names = {"base": base, "base_label": words["label"][kind_of(scale)], "method": method}
        values = [_value(column, rng.uniform(20, 80), best=method == grid.subject) for column in grid.columns_at(scale)]
        facts = {
            "method_label": grid.label(method, scale), "seeds": 3, "params_pct_paper": 1.99, "params_pct_plain": 2.31,
            "parameters_trainable": 10_000 * (1 + grid.methods.index(method)),
        }  # fmt: skip
        rows.append(names | facts | {key: value for each in values for key, value in each.items()})
        if reference := grid.reference_of(method):
            columns = grid.columns_at(scale)
            tests += [names | {"reference": reference} | _test(column, rng.normal(0, 6)) for column in columns]
    write(own / "tables" / f"{grid.table}.csv", rows)
    write(own / "significance" / f"{grid.table}.csv", tests)
    pair = {"base": "llama3", "column": "gsm8k", "ahead": "lora", "behind": "fft", "leaning": 1}
    write(own / "tables" / f"{grid.table}_orderings.csv", [pair | {"verdict": verdict} for verdict in VERDICTS])
    (own / "tables" / f"{grid.table}.md").write_text(REPORT.format(title=grid.title) + REST, encoding="utf-8")


def _value(column: Column, value: float, *, best: bool) -> dict[str, str]:
    parts = {"": value, "_spread": 1.2, "_ci_low": value - 7, "_ci_high": value + 7}
    printed = {column.id + part: f"{number:.1f}" for part, number in parts.items()}
    return printed | {f"{column.id}_best": "yes" if best else "", f"{column.id}_dagger": ""}


def _test(column: Column, difference: float) -> dict[str, Any]:
    ends = {
        "ci_low": difference - 4, "ci_high": difference + 4,
        "seeds_ci_low": difference - 6, "seeds_ci_high": difference + 6,
    }  # fmt: skip
    names = {"benchmark": column.benchmark, "metric": column.metric, "unit": "question", "items": 180}
    return names | {"difference": difference} | ends | TEST


def make_counts(folder: Path, table7: Grid) -> None:
    """Counts in the paper's proportions; the exact ones are another file's business."""
    rows = []
    for panel, models, ranks in (("rank", ["LLaMA-3-8B"], (8, 16, 32, 64, 128)), ("model", list(SIZES), (32,))):
        for model, rank, (method, factor) in product(models, ranks, FACTORS.items()):
            names = {"panel": panel, "model": model, "method": method, "rank": rank}
            trainable = int(rank * factor * SIZES[model] / SIZES["LLaMA-3-8B"])
            shares = {"params_pct_paper": 1.0, "params_pct_plain": 1.0}
            rows.append(names | {"trainable": trainable} | shares | {"base_parameters": SIZES[model]})
    write(folder / "figure1c.csv", rows)
    of_table7 = {"table": "table7", "base": "llama3"}
    counted = [of_table7 | {"method": each, "trainable": 10**7 * (1 + i)} for i, each in enumerate(table7.methods)]
    write(folder / "percentages.csv", counted)
    for name in ("table4", "table5", "table6", "percentages"):
        (folder / f"{name}.md").write_text(REPORT.format(title=name.title()), encoding="utf-8")


def make_audit(folder: Path) -> None:
    write(folder / "audit.csv", [dict(zip(CLAIM, claim, strict=True)) for claim in CLAIMS])
    write(folder / "forensics.csv", [{"check": "GRIM", "printed": "94.8", "finding": "impossible"}])
    (folder / "audit.md").write_text("# Audit\n\nEvery verdict is computed.\n", encoding="utf-8")


def make_theory(folder: Path) -> None:
    (folder / "figures").mkdir(parents=True)
    for name in ("theorem1", "theorem1_proof", "rows", "rank"):
        Image.new("RGB", (60, 40), "white").save(folder / "figures" / f"{name}.png")
    (folder / "theory.md").write_text(THEORY, encoding="utf-8")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV file with the columns of its first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
