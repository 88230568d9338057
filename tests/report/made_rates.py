"""Trials and a reference of the small scale as a GPU leaves them, with numbers made up after a plausible story."""

import math
from pathlib import Path

from made_results import write

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
MAIN = ("fft", "lora", "dora", "hydralora", "moelora", "idlora")
LABELS = {
    "lora": "LoRA", "lora_equal": "LoRA at ID-LoRA's count", "idlora_gaussian": "frozen Gaussian A",
    "idlora_random": "rows at random", "idlora_serial": "rows in order", "idlora_orthonormal": "orthonormal rows",
}  # fmt: skip
SOURCES = ("loss_gsm8k", "loss_gsm8k_test", "loss_codealpaca", "loss_humaneval", "loss_alpaca")
LONGER = {"lora": (1.07, 1.115), "idlora": (1.088, 1.103)}
"""Losses after more steps, at the best rate and at the paper's."""
HELD_OUT_BELOW = 0.25
"""Nats by which a held-out loss is below the validation loss of the same run."""


def loss_at(method: str, rate: float) -> float:
    """A valley through the loss at the best rate and at the paper's, steeper above the best; inf far above it."""
    best, lowest, paper, *_ = STORY[method]
    below, octaves = math.log2(best / 5e-5) or 1, math.log2(rate / best)
    if octaves > 2.5:
        return math.inf
    width = (paper - lowest) / max(below, 1) ** 1.6
    return lowest + (width * abs(octaves) ** 1.6 if octaves < 0 else 0.05 * octaves**2)


def rates_of(method: str) -> list[float]:
    """A grid of factor two that holds the best rate: whole for the compared methods, five rates for a control."""
    best = STORY[method][0]
    if method in MAIN:
        return sorted({*GRID, best})
    return [best * 2.0**step for step in range(-2, 3)]


def make_trials(experiments: Path) -> None:
    """experiments/tuning/small with trials.csv and, with held-out losses, longer.csv."""
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
    """sharpness.csv: two kinds of module and the whole of each method."""
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


def make_real(results: Path, *, ahead: tuple[str, ...] = (), level: tuple[str, ...] = ()) -> Path:
    """results/reference/small with the controls' table and tests of `STORY`; returns its folder.

    A method of ``ahead`` is as far ahead of ID-LoRA as it was behind, or the other way; of ``level`` the interval
    holds zero.
    """
    folder, rows, tests = results / "reference" / "small", [], []
    names = {"base": "llama3_2_3b", "base_label": "SmolLM2-135M-Instruct (from 4 bits)", "seeds": 3}
    for method, (_, loss, _, trained, _) in STORY.items():
        difference = (loss - STORY["idlora"][1]) * (-1 if method in ahead else 1)
        value = STORY["idlora"][1] + difference
        label = "ID-LoRA (PMRC, dense router, s=2)" if method == "idlora" else LABELS.get(method, method)
        losses = {"loss": f"{value:.4f}", "loss_spread": "0.0005"}
        rows.append(names | {"method": method, "method_label": label, "parameters_trainable": trained} | losses)
        far = abs(difference) + 0.001 if method in level else 0.0008
        for column in ("loss", *SOURCES):
            ends = {"seeds_ci_low": f"{difference - far:.6f}", "seeds_ci_high": f"{difference + far:.6f}"}
            tested = {"base": names["base"], "method": method, "reference": "idlora", "column": column}
            tests.append(tested | {"difference": f"{difference:.6f}"} | ends | {"ci_low": "9", "ci_high": "9"})
    rows.append(names | {"method": "base", "method_label": "Base", "parameters_trainable": 0, "loss": UNTUNED})
    tests = [row for row in tests if row["method"] != "idlora"]
    write(folder / "tables" / "table_controls.csv", rows)
    write(folder / "significance" / "table_controls.csv", tests)
    write(folder / "metrics.csv", [{"method": "base", "parameters_total": 134_515_008}])
    return folder
