"""Search the learning rates of a table: the same trials for every method, on rows held out of the training set.

    python scripts/tune.py table=table1 scale=tiny

Writes experiments/tuning/<scale>/{trials,chosen}.csv, which hparams=tuned reads. Not part of `make table1`.
"""

import hydra
import yaml
from omegaconf import DictConfig

from idlora.pipeline.compose import EXPERIMENTS, chosen_csv, compose_cell, plain, register_resolvers
from idlora.pipeline.shell import command
from idlora.pipeline.tuning import search
from idlora.report import load_grid


@hydra.main(version_base="1.3", config_path="../configs", config_name="tune")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    grid = load_grid(EXPERIMENTS / values["table"])
    trials = yaml.safe_load((EXPERIMENTS / "tuning" / "trials.yaml").read_text())
    passed = [f"{key}={values[key]}" for key in ("data_root", "results_dir") if values[key] is not None]
    cells = [
        compose_cell(
            experiment,
            method,
            scale=values["scale"],
            seed=trials["seed"],
            overrides=[*passed, f"train.learning_rate={rate}", f"data.holdout={trials['holdout']}", "threads=1"],
        )
        for experiment in values["experiments"] or grid.experiments
        for method in values["methods"] or [method for method in grid.methods if method != "base"]
        for rate in trials["learning_rates"]
    ]
    chosen = search(
        cells,
        folder=chosen_csv(values["scale"]).parent,
        workers=values["workers"],
        told=lambda t: print(
            f"{t.experiment} {t.method} {t.learning_rate:g}: {t.heldout_loss:.4f} {t.outcome}", flush=True
        ),
    )
    for choice in chosen:
        edge = "  (at the edge of the grid)" if choice.at_edge else ""
        print(f"{choice.experiment} {choice.method}: {choice.learning_rate:g}, loss {choice.heldout_loss:.4f}{edge}")


if __name__ == "__main__":
    register_resolvers()
    main()
