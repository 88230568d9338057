"""Comparison of the paper's hyperparameter tables with the resolved training configs."""

from pathlib import Path

from omegaconf import OmegaConf

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cli import NotComplete
from reproduction.paths import EXPERIMENTS
from reproduction.report.documents import read_csv
from reproduction.report.hyperparameters import Hyperparameter, differing, summary, write

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
"""The paper's name of a hyperparameter → its key in the composed config."""


def report_hyperparameters(table: str, *, results_dir: Path | str) -> None:
    """Print and write a table's hyperparameters. Raises `NotComplete` if one differs from the paper's."""
    found, title = hyperparameters(table), f"Table {table.removeprefix('table')}: hyperparameters of ID-LoRA"
    written = write(table, title, found, folder=Path(results_dir) / "counts")
    print(written[1].read_text(encoding="utf-8"))
    print("written: " + ", ".join(map(str, written)))
    if differing(found):
        raise NotComplete(summary(found))


def hyperparameters(table: str) -> list[Hyperparameter]:
    """Return the values of experiments/<table>/paper.csv with those of ID-LoRA's configs at the paper's scale."""
    path = EXPERIMENTS / table / "paper.csv"
    rows = read_csv(path)
    if not rows or "hyperparameter" not in rows[0]:
        raise ConfigError(f"table={table} has no hyperparameters: {path} has no such column")
    if unknown := [row["hyperparameter"] for row in rows if row["hyperparameter"] not in KEYS]:
        raise ConfigError(f"{path} has the hyperparameter {unknown[0]}; the known ones are {', '.join(KEYS)}")
    experiments = {row["experiment"] for row in rows}
    configs = {name: compose("train", [f"experiment={name}", "method=idlora", "scale=paper"]) for name in experiments}
    found = []
    for row in rows:
        key = KEYS[row["hyperparameter"]]
        value = OmegaConf.select(configs[row["experiment"]], key)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        found.append(
            Hyperparameter(
                experiment=row["experiment"], name=row["hyperparameter"], key=key, value=value, printed=row["value"]
            )
        )
    return found
