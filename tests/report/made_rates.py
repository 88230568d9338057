"""Made-up trials and reference of the small scale, in the format of real ones, with plausible numbers."""

import csv
import math
import shutil
from itertools import product
from pathlib import Path

from made_results import write

from reproduction.paths import EXPERIMENTS
from reproduction.report import load_grid
from reproduction.report.figures import Sources, draw_figures

EXPERIMENT = "multitask_llama3_2_3b"
UNTUNED = 1.594
STORY = {
    # best rate, loss there, at the paper's rate, trained parameters, norm of A's rows
    "fft": (1e-4, 1.085, 1.101, 134_515_008, ""),
    "lora": (4e-3, 1.094, 1.25, 3_052_800, 0.58),
    "dora": (4e-3, 1.093, 1.245, 3_200_000, 0.58),
    "hydralora": (3.2e-3, 1.096, 1.22, 3_300_000, 0.58),
    "moelora": (3.2e-3, 1.101, 1.27, 2_600_000, 0.58),
    "idlora": (1.6e-3, 1.108, 1.2, 1_840_000, 5.2),
    "idlora_random": (1.6e-3, 1.1122, 1.21, 1_840_000, 4.9),
    "idlora_serial": (1.6e-3, 1.1119, 1.21, 1_840_000, 4.9),
    "idlora_pivoted_qr": (8e-4, 1.1175, 1.2, 1_840_000, 7.9),
    "idlora_smallest_norm": (1.6e-3, 1.1176, 1.24, 1_840_000, 3.0),
    "idlora_largest_norm": (8e-4, 1.1175, 1.2, 1_840_000, 8.4),
    "idlora_gaussian": (1.6e-3, 1.1037, 1.2, 1_840_000, 5.2),
    "idlora_orthonormal": (1.6e-3, 1.1049, 1.2, 1_840_000, 5.2),
    "idlora_equal_norm": (1.6e-3, 1.1062, 1.2, 1_840_000, 5.2),
    "lora_fa": (4e-3, 1.1079, 1.3, 1_870_000, 0.58),
    "lora_equal": (4e-3, 1.0966, 1.27, 1_831_680, 0.58),
    "idlora_inner": (2e-4, 1.143, 1.19, 1_250_000, 5.2),
    "idlora_uniform": (1.6e-3, 1.1194, 1.23, 1_240_000, 5.2),
    "idlora_no_rb": (1.6e-3, 1.1064, 1.2, 1_840_000, 5.6),
    "idlora_no_rb_same_rank": (1.6e-3, 1.1066, 1.2, 3_680_000, 5.2),
}
GRID = [5e-5 * 2**step for step in range(11)]
MAIN = tuple(method for method in load_grid(EXPERIMENTS / "table2").methods if method != "base")
LABELS = {
    "fft": "FFT", "dora": "DoRA", "hydralora": "HydraLoRA", "moelora": "MoELoRA",
    "lora": "LoRA", "lora_equal": "LoRA at ID-LoRA's count", "idlora_gaussian": "frozen Gaussian A",
    "idlora_random": "rows at random", "idlora_serial": "rows in order", "idlora_orthonormal": "orthonormal rows",
}  # fmt: skip
SOURCES = ("loss_gsm8k", "loss_gsm8k_test", "loss_codealpaca", "loss_humaneval", "loss_alpaca")
LONGER = {"lora": (1.07, 1.115), "idlora": (1.088, 1.103)}
"""Losses after more steps, at the best rate and at the paper's."""
HELD_OUT_BELOW = 0.25
"""Nats by which a held-out loss is below the validation loss of the same run."""


def loss_at(method: str, rate: float) -> float:
    """Return a loss on a curve through the two known values, steeper above the best rate; inf far above it."""
    best, lowest, paper, *_ = STORY[method]
    below, octaves = math.log2(best / 5e-5) or 1, math.log2(rate / best)
    if octaves > 2.5:
        return math.inf
    width = (paper - lowest) / max(below, 1) ** 1.6
    return lowest + (width * abs(octaves) ** 1.6 if octaves < 0 else 0.05 * octaves**2)


def rates_of(method: str) -> list[float]:
    """Return rates in steps of two including the best one: all for compared methods, five for a control."""
    best = STORY[method][0]
    if method in MAIN:
        return sorted({*GRID, best})
    return [best * 2.0**step for step in range(-2, 3)]


def make_trials(experiments: Path) -> None:
    """Write experiments/tuning/small with trials.csv and longer.csv, which has held-out losses."""
    folder = experiments / "tuning" / "small"

    def trial(method: str, rate: float, loss: float, steps: int) -> dict[str, object]:
        named = {"setting": f"of {method}", "experiment": EXPERIMENT, "method": method, "learning_rate": f"{rate:g}"}
        named |= {"validation_loss": loss, "outcome": "done" if loss < math.inf else "diverged", "config": "c"}
        return named | {"heldout_loss": "", "steps": steps, "trained": STORY[method][3]}

    every = [trial(method, rate, loss_at(method, rate), 200) for method in STORY for rate in rates_of(method)]
    write(folder / "trials.csv", every)
    late = [
        trial(method, rate, loss, 1900) | {"heldout_loss": loss - HELD_OUT_BELOW}
        for method, losses in LONGER.items()
        for rate, loss in zip((STORY[method][0], 5e-5), losses, strict=True)
    ]
    write(folder / "longer.csv", late)


def make_sharpness(path: Path) -> None:
    """Write sharpness.csv: two kinds of module and the whole of each method."""
    rows = []
    for method, (_, _, _, trained, norm) in STORY.items():
        for seed, module in ((0, "q_proj"), (0, "down_proj"), (0, "all")):
            whole = module == "all"
            rows.append({
                "base": "smollm2_135m", "checksum": "c", "method": method, "label": method, "seed": seed,
                "trained": trained, "rows": 32, "tokens": 4000, "rate": 5e-5, "module": module,
                "a_row_norm": "" if norm == "" else norm + 9 * (not whole),
                "first_update": 0.001 * (norm or 1),
                "largest_eigenvalue": 10 * (norm or 4) ** 2 if whole else "",
                "iterations": 20, "converged": "no" if method == "idlora_inner" else "yes",
            })  # fmt: skip
    write(path, rows)


LOSSES = {
    "llama3": {method: STORY[method][1] for method in MAIN} | {"dora": 1.0935, "base": UNTUNED},
    "llama3_paper_rate": {method: STORY[method][2] for method in MAIN} | {"base": UNTUNED},
    "llama3_full": {"fft": 1.066, "lora": 1.07, "dora": 1.072, "hydralora": 1.078, "moelora": 1.079, "idlora": 1.088},
}
"""Held-out losses of Table 2's blocks and of longer training."""
SCORES = {
    "gsm8k": dict.fromkeys(STORY, 4.5) | {"fft": 8.2, "lora": 6.0, "dora": 6.3, "hydralora": 4.0, "moelora": 5.5},
    "mmlu": dict.fromkeys(STORY, 25.3),
    "commonsenseqa": dict.fromkeys(STORY, 30.0) | {"idlora": 30.4},
    **{f"pass@{k}": dict.fromkeys(STORY, 2.0 + 0.3 * k) | {"idlora": 2.0 + 0.2 * k} for k in (1, 5, 10)},
}
TABLES = {
    "table2": ("lora", {"llama3": 3, "llama3_paper_rate": 1}),
    "table_longer": ("lora", {"llama3_full": 1}),
    "table_controls": ("idlora", {"llama3_2_3b": 3}),
}
"""Each table's reference, and its bases with their numbers of seeds."""
FLOORS = {"mmlu": "chance", "pass@1": "zero"}
LOSS_WIDTH, SCORE_WIDTH = 0.0008, 1.0
"""Half widths of a difference's interval, in nats and in points."""


def make_real(
    results: Path,
    *,
    ahead: tuple[str, ...] = (),
    level: tuple[str, ...] = (),
    losses: dict[str, dict[str, float]] | None = None,
    scores: dict[str, dict[str, dict[str, float]]] | None = None,
    floors: dict[str, str] = FLOORS,
    follows: dict[str, int] | None = None,
    runs: dict[str, int] | None = None,
    sources: dict[tuple[str, str], dict[str, float]] | None = None,
) -> Path:
    """Write results/reference/small with Table 2, longer training, the controls of `STORY` and worth.csv.

    Controls in ``ahead`` have the sign of their difference from ID-LoRA flipped; for those in ``level`` the interval
    contains zero. ``losses`` and ``scores`` by base change `LOSSES` and `SCORES`. ``follows`` maps a benchmark to the
    sign of its association with the loss over the controls' runs; runs at the paper's rate have a higher loss and lower
    scores. ``runs`` by base are numbers of seeds, ``sources`` by base and column change a source's losses.
    """
    folder, subject = results / "reference" / "small", STORY["idlora"][1]
    widths = {method: abs(STORY[method][1] - subject) + 0.001 for method in level}
    controls = {method: subject + (story[1] - subject) * (1 - 2 * (method in ahead)) for method, story in STORY.items()}
    of_base = {base: own | (losses or {}).get(base, {}) for base, own in LOSSES.items()}
    of_base["llama3_2_3b"] = controls | {"base": UNTUNED}
    for table, (reference, bases) in TABLES.items():
        rows, tests = [], []
        for base, seeds in bases.items():
            seeds = (runs or {}).get(base, seeds)
            own, changed = of_base[base], (scores or {}).get(base, {})
            values = {column: every | changed.get(column, {}) for column, every in SCORES.items()}
            values = {column: {m: every[m] for m in own if m in every} for column, every in values.items()}
            labels = LABELS | ({"idlora": "ID-LoRA (PMRC, dense router, s=2)"} if table == "table_controls" else {})
            names = {"base": base, "base_label": "SmolLM2-135M-Instruct (from 4 bits)", "seeds": seeds}
            spread = {"loss_spread": "0.0005" if seeds > 1 else ""}
            rows += [names | spread | row for row in _rows(own, values, labels)]
            for column in ("loss", *SOURCES, *values):
                metric, width = ("strict", SCORE_WIDTH) if column in values else ("nats_per_token", LOSS_WIDTH)
                named = {"base": base, "reference": reference, "column": column, "metric": metric}
                named |= {"floor": floors.get(column, ""), "seeds": seeds}
                tested = values.get(column, own | (sources or {}).get((base, column), {}))
                tested = tests_of(tested, reference, widths={"": width} | widths, over_seeds=seeds > 1)
                tests += [named | test for test in tested]
        write(folder / "tables" / f"{table}.csv", rows)
        write(folder / "significance" / f"{table}.csv", tests)
    write(folder / "tables" / "worth.csv", _worth(controls, {"gsm8k": -1, "mmlu": 0} | (follows or {})))
    write(folder / "metrics.csv", [{"method": "base", "parameters_total": 134_515_008}])
    return folder


def _rows(losses: dict[str, float], scores: dict[str, dict[str, float]], labels: dict[str, str]) -> list[dict]:
    return [
        {"method": method, "method_label": labels.get(method, method), "loss": f"{loss:.4f}"}
        | {"parameters_trainable": STORY[method][3] if method in STORY else 0}
        | {column: f"{own[method]:.1f}" if method in own else "" for column, own in scores.items()}
        for method, loss in losses.items()
    ]


def tests_of(values: dict[str, float], reference: str, *, widths: dict[str, float], over_seeds: bool) -> list[dict]:
    """Test each method against the reference; with seeds the interval over items is deliberately wrong."""
    rows = []
    for method in (method for method in values if method != reference):
        difference = values[method] - values[reference]
        width = widths.get(method, widths[""])
        ends = f"{difference - width:.6f}", f"{difference + width:.6f}"
        (low, high), (seeds_low, seeds_high) = (("9", "9"), ends) if over_seeds else (ends, ("", ""))
        row = {"method": method, "difference": f"{difference:.6f}", "ci_low": low, "ci_high": high}
        rows.append(row | {"seeds_ci_low": seeds_low, "seeds_ci_high": seeds_high})
    return rows


def _worth(losses: dict[str, float], follows: dict[str, int]) -> list[dict]:
    rows = [
        {"model": "m", "method": "base", "seed": "", "run": "base", "loss": UNTUNED, "experiment": ""}
        | dict.fromkeys(follows, 0)
    ]
    for at, (method, seed) in enumerate(product(losses, range(3))):
        loss = losses[method] + seed / 1e4
        scores = {column: 30 + sign * 100 * loss if sign else 25 + 7 * at % 5 for column, sign in follows.items()}
        named = {"model": "m", "method": method, "seed": seed, "run": f"{method}-{seed}", "loss": loss}
        rows.append(named | scores | {"experiment": EXPERIMENT})
        worse = {column: score - 40 for column, score in scores.items()}
        rows.append(named | worse | {"experiment": "multitask_llama3_paper_rate", "loss": loss + 0.2})
    return [row | {f"{column}_ci_{end}": 0 for column in follows for end in ("low", "high")} for row in rows]


def make_real_beside(experiments: Path, **story) -> Path:
    """Make results/ beside ``experiments``, with the reference of `make_real`, starts and rates."""
    results = experiments.parent / "results"
    shutil.rmtree(results, ignore_errors=True)
    make_real(results, **story)
    sources = Sources(results, experiments, "small", reference=True)
    make_sharpness(sources.sharpness)
    draw_figures(sources, "rates")
    return results


def change_rates(results: Path, method: str, **values: str) -> None:
    """Overwrite columns of one method in rates.csv."""
    path = results / "reference" / "small" / "tables" / "rates.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    write(path, [row | values if row["method"] == method else row for row in rows])
