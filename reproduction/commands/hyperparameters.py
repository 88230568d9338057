"""The hyperparameters of the paper's tables, read from the configs that a training would resolve."""

import csv

from omegaconf import OmegaConf

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.paths import EXPERIMENTS
from reproduction.report.hyperparameters import Hyperparameter

METHOD = "idlora"
"""The tables give ID-LoRA's rank and α; the rest is an experiment's, whatever the method."""

KEYS = {
    "rank": "method.arguments.r",
    "alpha": "method.arguments.lora_alpha",
    "learning_rate": "train.learning_rate",
    "dropout": "method.arguments.lora_dropout",
    "optimizer": "train.optimizer",
    "batch_size": "train.batch_size",
    "warmup_steps": "train.warmup_steps",
    "epochs": "train.epochs",
    "where": "method.arguments.target_modules",
}
"""What the paper calls a hyperparameter → the key of the composed config that holds it."""


def hyperparameters(table: str) -> list[Hyperparameter]:
    """Every value of experiments/<table>/paper.csv, with the one that its experiment's config has at the paper's scale.

    Raises `ConfigError` for a table without hyperparameters, or one that names what no config key holds.
    """
    path = EXPERIMENTS / table / "paper.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
    if not rows or "hyperparameter" not in rows[0]:
        raise ConfigError(f"table={table} has no hyperparameters: {path} has no such column")
    if unknown := [row["hyperparameter"] for row in rows if row["hyperparameter"] not in KEYS]:
        raise ConfigError(f"{path} has the hyperparameter {unknown[0]}; the known ones are {', '.join(KEYS)}")
    experiments = dict.fromkeys(row["experiment"] for row in rows)
    configs = {
        name: compose("train", [f"experiment={name}", f"method={METHOD}", "scale=paper"]) for name in experiments
    }
    return [
        Hyperparameter(
            experiment=row["experiment"],
            name=row["hyperparameter"],
            key=KEYS[row["hyperparameter"]],
            value=_plain(OmegaConf.select(configs[row["experiment"]], KEYS[row["hyperparameter"]])),
            printed=row["value"],
        )
        for row in rows
    ]


def _plain(value: object) -> object:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
