"""Tuned learning rates, looked up by what is trained rather than by its name.

A setting is everything that is trained except the learning rate, the seed, the rows that select the rate, and the
location of base and data: a 4-bit file of the base, or another copy of the data, is the same setting. Experiments with
the same training share one setting, its trials and its rate; another rank, data set or number of steps is another
setting.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.paths import EXPERIMENTS
from reproduction.records import digest
from reproduction.records.identity import identity

TUNING = EXPERIMENTS / "tuning"
TUNED = "tuned"
"""Value of train.learning_rate that requests the tuned rate."""

CHOOSING = "validation_rows"
"""Key in trials.yaml and in a config's ``data`` for the rows that a trial is scored on and does not train on."""

NOT_OF_SETTING = {"train": ("learning_rate", "seed"), "data": (CHOOSING, "digest")}
"""Keys in each part of a run's identity that its setting excludes; it also excludes the part "seed"."""


@dataclass(frozen=True, kw_only=True)
class TrialsPlan:
    """The trials of one scale in experiments/tuning/trials.yaml.

    Args:
        learning_rates: rates of the first trials.
        seed: seed of every trial.
        validation_rows: training rows that a trial is scored on and does not train on.
        few: kind of method → rates that replace `learning_rates` for methods that `all_for` does not name.
        all_for: data set → methods that get all of `learning_rates`; required with `few`.
        extensions: how many times a best rate at the edge adds a next rate, by the factor 2.
        longer_steps: steps of additional trials at the paper's rate and at the best one; required with `longer_for`.
        longer_for: data set → methods that get the longer trials.
    """

    learning_rates: tuple[float, ...]
    seed: int
    validation_rows: int
    few: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    all_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extensions: int = 0
    longer_steps: int | None = None
    longer_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one, other in (("few", "all_for"), ("longer_steps", "longer_for")):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise ValueError(f"{one} is {getattr(self, one)} and {other} {getattr(self, other)}: give both or none")

    def rates(self, method: str, *, kind: str, data: str) -> tuple[float, ...]:
        """Return the learning rates of a method's first trials on a data set; ``kind`` as in configs/method.

        Raises ValueError for a kind that the plan does not contain.
        """
        if not self.few or method in self.all_for.get(data, ()):
            return self.learning_rates
        if not (rates := self.few.get(kind)):
            raise ValueError(
                f"few has no learning rates for {method}, which is of the kind {kind}: add some in "
                f"{TUNING / 'trials.yaml'}, or add {method} to all_for"
            )
        return rates


def trials_plan(scale: str) -> TrialsPlan:
    """Return a scale's plan in experiments/tuning/trials.yaml. Raises `ConfigError` if there is none."""
    path = TUNING / "trials.yaml"
    plans = yaml.safe_load(path.read_text(encoding="utf-8"))
    if scale not in plans:
        raise ConfigError(f"{path} has no trials for scale={scale}, only for {', '.join(plans)}: add them")
    return parse_dataclass(TrialsPlan, plans[scale], where=f"{path.name}:{scale}")


def chosen_csv(scale: str) -> Path:
    """Return the file of a scale's tuned rates: one row per setting with columns setting, learning_rate and others."""
    return TUNING / scale / "chosen.csv"


def setting(config: Mapping[str, Any]) -> str:
    """Return a run's setting as 10 hex digits, equal for all runs that share its trials.

    `config` must have the trials' seed: a method's arguments may contain the seed under any name, so the setting of a
    run with another seed is that of the same config composed at the trials' seed.
    """
    parts = {part: values for part, values in identity(config).items() if part != "seed"}
    for part in NOT_OF_SETTING.keys() & parts.keys():
        parts[part] = {key: value for key, value in parts[part].items() if key not in NOT_OF_SETTING[part]}
    return digest(parts | {"model": _whichever_copy(parts["model"])})


def _whichever_copy(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model of a config in a form equal for the hub's weights and for the GGUF file that it names."""
    gguf = model.get("gguf")
    if gguf is None or (model["checksum"] or model["path_or_id"]) not in (gguf["sha256"], gguf["of"]):
        return model
    return {key: value for key, value in model.items() if key != "checksum"} | {"path_or_id": gguf["of"]}


def tuned_rate(config: Mapping[str, Any]) -> float:
    """Return the rate that `make tune` chose for the `setting` of a run's config, which has the trials' seed.

    Raises `ConfigError` if there is none.
    """
    path, wanted = chosen_csv(config["scale"]), setting(config)
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["setting"] == wanted:
                    return float(row["learning_rate"])
    experiment, method, scale = config["experiment"], config["method"]["name"], config["scale"]
    raise ConfigError(
        f"experiment={experiment} method={method} scale={scale} with these settings has no tuned learning rate: "
        f"`make tune METHOD={method} EXPERIMENT={experiment} SCALE={scale}` searches it for the settings that the "
        "configs' files have; else give hparams=default or train.learning_rate=…"
    )
