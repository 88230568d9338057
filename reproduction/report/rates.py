"""Learning rates: the loss of every trial by method, its best rate beside the paper's, and possible explanations.

Trials are those of experiments/tuning/<scale>: one seed, one run per rate. The best rate is chosen by validation loss
on rows kept out of the training.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.records import write_text
from reproduction.report.documents import document, pipes, write_csv

NEAR = 0.01
"""Tolerance in nats per token for rates that are about as good as the best one."""

YARDSTICK = "lora"
"""Method from which differences are taken."""

STARTS = ("a_row_norm", "first_update", "largest_eigenvalue")
"""Columns of sharpness.csv that describe the start of training."""

COLUMNS = (
    "method", "method_label", "parameters_trainable", "steps", "best_rate", "at_edge", "loss_best",
    "loss_best_difference", "paper_rate", "loss_paper", "loss_paper_difference", "near_lowest", "near_highest",
    "a_row_norm", "first_update", "largest_eigenvalue", "longer_steps", "longer_best", "longer_paper",
    "longer_best_heldout", "longer_paper_heldout",
)  # fmt: skip

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run: its learning rate, its validation loss in nats per token (inf if it diverged), and its held-out loss, if
    measured.
    """

    rate: float
    loss: float
    heldout: float | None = None


@dataclass(frozen=True)
class Curve:
    """The trials of one method, by rising rate, and its number of trained parameters (None if not counted)."""

    trials: tuple[Trial, ...] = ()
    trained: int | None = None

    @property
    def best(self) -> Trial | None:
        """The trial with the lowest loss; None if all diverged."""
        done = [trial for trial in self.trials if math.isfinite(trial.loss)]
        return min(done, key=lambda trial: trial.loss, default=None)

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or the highest tried, so that a better one may lie beyond."""
        return self.best in (self.trials[0], self.trials[-1])

    @property
    def near(self) -> list[float]:
        """Rates whose loss is at most `NEAR` above that of the best rate."""
        return [trial.rate for trial in self.trials if self.best and trial.loss <= self.best.loss + NEAR]

    def at(self, rate: float) -> Trial | None:
        """Return the trial at a rate, None if there is none."""
        return next((trial for trial in self.trials if math.isclose(trial.rate, rate, rel_tol=1e-6)), None)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """All trials of one model. ``curves`` and ``longer`` map a method to its trials of ``steps`` and ``longer_steps``.

    ``starts`` maps a method to the measurements at its first step, by column of sharpness.csv.
    """

    paper_rate: float
    labels: Mapping[str, str]
    curves: Mapping[str, Curve]
    longer: Mapping[str, Curve]
    starts: Mapping[str, Mapping[str, float]]
    steps: str = ""
    longer_steps: str = ""


def curves(trials: Iterable[Row], *, experiments: Sequence[str]) -> dict[str, Curve]:
    """Return each method's trials in these experiments, with the setting of the first experiment that has any."""
    by_method: dict[str, list[Row]] = {}
    for row in trials:
        if row["experiment"] in experiments:
            by_method.setdefault(row["method"], []).append(row)
    found = {}
    for method, rows in by_method.items():
        first = min(rows, key=lambda row: experiments.index(row["experiment"]))
        own = [
            Trial(
                rate=float(row["learning_rate"]),
                loss=float(row["validation_loss"]),
                heldout=float(row["heldout_loss"]) if row.get("heldout_loss") else None,
            )
            for row in rows
            if row["setting"] == first["setting"]
        ]
        trained = int(first["trained"]) if first.get("trained") else None
        found[method] = Curve(tuple(sorted(own, key=lambda trial: trial.rate)), trained=trained)
    return found


def starts(sharpness: Iterable[Row], *, base: str, paper_rate: float) -> dict[str, dict[str, float]]:
    """Return the columns `STARTS` of each method over all modules of a base, as means over seeds.

    The first update is that at the paper's rate; a missing eigenvalue is left out.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for row in (row for row in sharpness if (row["base"], row["module"]) == (base, "all")):
        known = {
            "first_update": math.isclose(float(row["rate"]), paper_rate, rel_tol=1e-6),
            "largest_eigenvalue": row["converged"] == "yes",
        }
        for column in STARTS:
            if row[column] and known.get(column, True):
                values.setdefault(row["method"], {}).setdefault(column, []).append(float(row[column]))
    return {
        method: {column: sum(found) / len(found) for column, found in own.items()} for method, own in values.items()
    }


def rate_rows(rates: Rates) -> list[dict[str, object]]:
    """Return the table with the columns `COLUMNS`, one row for each method with trials or a start.

    Missing measurements are empty, diverged losses "inf".
    """
    unit, rows = rates.curves.get(YARDSTICK, Curve()), []
    for method in dict.fromkeys([*rates.curves, *rates.starts]):
        curve, longer = rates.curves.get(method, Curve()), rates.longer.get(method, Curve())
        best, at_paper = curve.best, curve.at(rates.paper_rate)
        longer_best, longer_paper = best and longer.at(best.rate), longer.at(rates.paper_rate)
        near = curve.near
        row = {
            "method": method,
            "method_label": rates.labels.get(method, method),
            "parameters_trainable": curve.trained,
            "steps": rates.steps,
            "best_rate": best and f"{best.rate:g}",
            "at_edge": "yes" if best and curve.at_edge else "",
            "loss_best": best and best.loss,
            "loss_best_difference": _difference(best, unit.best, method),
            "paper_rate": f"{rates.paper_rate:g}",
            "loss_paper": at_paper and at_paper.loss,
            "loss_paper_difference": _difference(at_paper, unit.at(rates.paper_rate), method),
            "near_lowest": f"{min(near):g}" if near else None,
            "near_highest": f"{max(near):g}" if near else None,
            "longer_steps": rates.longer_steps if longer.trials else "",
            "longer_best": longer_best and longer_best.loss,
            "longer_paper": longer_paper and longer_paper.loss,
            "longer_best_heldout": longer_best and longer_best.heldout,
            "longer_paper_heldout": longer_paper and longer_paper.heldout,
        } | rates.starts.get(method, {})
        rows.append({column: _written(row.get(column)) for column in COLUMNS})
    return rows


def write_rates(rates: Rates, folder: Path) -> list[Path]:
    """Write rates.csv and rates.md into a folder; returns their paths."""
    rows = rate_rows(rates)
    write_csv(folder / "rates.csv", COLUMNS, rows)
    write_text(folder / "rates.md", markdown(rates, rows))
    return [folder / "rates.csv", folder / "rates.md"]


def markdown(rates: Rates, rows: Iterable[Mapping[str, object]]) -> str:
    """Return the table as Markdown, with an explanation of its columns."""
    unit, paper = rates.labels.get(YARDSTICK, YARDSTICK), spelled(rates.paper_rate)
    after = f" after {rates.longer_steps} steps" if rates.longer_steps else ", longer"
    headings = [
        "Method", "# trained", "best rate", f"rates within {NEAR:g}", "loss at the best", f"from {unit}'s",
        f"loss at {paper}", f"from {unit}'s", "row norm of A", f"first update at {paper}", "largest eigenvalue",
        f"loss at the best{after}", f"loss at {paper}{after}", f"held-out loss at the best{after}",
        f"held-out loss at {paper}{after}",
    ]  # fmt: skip
    steps = f" after {rates.steps} steps" if rates.steps else ""
    return document(
        "Learning rates",
        f"Validation loss{steps}, of rows kept out of the training, in nats a token, lower is better; one run a rate, "
        f"all of one seed, so no intervals. It chose each method's best rate; {paper} is the paper's.",
        pipes(headings, [_line(row) for row in rows], left=1),
        f"- Rates within {NEAR:g}: the lowest and the highest rate with a loss at most that much above the loss at the "
        "best. An arrow: the best rate is the lowest or highest that was tried.\n"
        "- Where training starts: the mean norm of A's rows; the first update, by which share of its norm a module's "
        "output changes with the first step at that rate (both means over the modules); the largest eigenvalue of the "
        "Hessian of the loss over what is trained, where it was found.",
    )


def spelled(rate: float) -> str:
    """Format a learning rate: 5e-5, 1.5e-3."""
    digits, _, exponent = f"{rate:.3e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def _line(row: Mapping[str, object]) -> list[str]:
    near = [spelled(float(row[end])) for end in ("near_lowest", "near_highest") if row[end] != ""]
    best = spelled(float(row["best_rate"])) if row["best_rate"] != "" else "—"
    shown = {
        "loss_best": ".4f", "loss_best_difference": "+.4f", "loss_paper": ".4f", "loss_paper_difference": "+.4f",
        "a_row_norm": ".3g", "first_update": ".3g", "largest_eigenvalue": ".3g", "longer_best": ".4f",
        "longer_paper": ".4f", "longer_best_heldout": ".4f", "longer_paper_heldout": ".4f",
    }  # fmt: skip
    return [
        str(row["method_label"]),
        f"{int(row['parameters_trainable']):,}" if row["parameters_trainable"] != "" else "—",
        f"{best} ↔" if row["at_edge"] else best,
        " to ".join(dict.fromkeys(near)) or "—",
        *(f"{float(row[column]):{form}}" if row[column] != "" else "—" for column, form in shown.items()),
    ]


def _difference(trial: Trial | None, unit: Trial | None, method: str) -> float | None:
    finite = trial and unit and math.isfinite(trial.loss) and math.isfinite(unit.loss)
    return trial.loss - unit.loss if finite and method != YARDSTICK else None


def _written(value: object) -> object:
    """Format as in the CSV: floats with six digits, independent of the order of summation; "" for None."""
    return "" if value is None else float(f"{value:.6g}") + 0.0 if isinstance(value, float) else value
