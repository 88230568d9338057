"""Tuned learning rates, found by what is trained and not by what it is called.

A setting is what is trained apart from its learning rate, its seed, the rows that choose the rate, and where base and
data come from: a file of the base in 4 bits, or another copy of the data, is no other setting. Experiments that train
the same thing have one setting, and with it one set of trials and one rate; a changed rank, data set or number of
steps is another setting.
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
"""What train.learning_rate says in place of a number where the tuned one is asked for."""

CHOOSING = "validation_rows"
"""The key, of trials.yaml and of a config's ``data``, for the rows that a trial is scored on and does not train on."""

NOT_OF_SETTING = {"train": ("learning_rate", "seed"), "data": (CHOOSING, "digest")}
"""Of each part of a run's identity, what is no part of its setting; the part "seed" is left out as a whole."""


@dataclass(frozen=True, kw_only=True)
class TrialsPlan:
    """The trials of one scale, as experiments/tuning/trials.yaml has them.

    Args:
        learning_rates: of the first trials.
        seed: of every trial.
        validation_rows: training rows that a trial is scored on and does not train on.
        few: kind of method → learning rates in their place, for methods that `all_for` does not name.
        all_for: data set → methods that get all of `learning_rates`; goes with `few`.
        extensions: how often a best rate at the edge gets the next one, by the factor 2.
        longer_steps: steps of more trials, at the paper's rate and at the best one; goes with `longer_for`.
        longer_for: data set → methods that get those trials.
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
        """The learning rates of a method's first trials on a data set; ``kind`` as in configs/method. Raises ValueError
        for a kind of which the plan says nothing.
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
    """What experiments/tuning/trials.yaml says of a scale. Raises `ConfigError` where it says nothing."""
    path = TUNING / "trials.yaml"
    plans = yaml.safe_load(path.read_text(encoding="utf-8"))
    if scale not in plans:
        raise ConfigError(f"{path} has no trials for scale={scale}, only for {', '.join(plans)}: add them")
    return parse_dataclass(TrialsPlan, plans[scale], where=f"{path.name}:{scale}")


def chosen_csv(scale: str) -> Path:
    """Where the tuned learning rates of a scale are, one row a setting: columns setting, learning_rate and others."""
    return TUNING / scale / "chosen.csv"


def setting(config: Mapping[str, Any]) -> str:
    """The setting of a run's config as 10 hex digits, equal for whatever shares its trials.

    The run has the trials' seed: a method's arguments may hold it under any name, so the setting of another seed's run
    is that of the same config composed at the trials' seed.
    """
    parts = {part: values for part, values in identity(config).items() if part != "seed"}
    for part in NOT_OF_SETTING.keys() & parts.keys():
        parts[part] = {key: value for key, value in parts[part].items() if key not in NOT_OF_SETTING[part]}
    return digest(parts | {"model": _whichever_copy(parts["model"])})


def _whichever_copy(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model of a config, the same one for the hub's weights and for those from the GGUF file that it names."""
    gguf = model.get("gguf")
    if gguf is None or (model["checksum"] or model["path_or_id"]) not in (gguf["sha256"], gguf["of"]):
        return model
    return {key: value for key, value in model.items() if key != "checksum"} | {"path_or_id": gguf["of"]}


def tuned_rate(config: Mapping[str, Any]) -> float:
    """The learning rate that `make tune` chose for the `setting` of a run's config, which has the trials' seed.

    Raises `ConfigError` where there is none.
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
