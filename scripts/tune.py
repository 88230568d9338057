"""Search the learning rates of tables: the same trials for every method, on rows held out of the training set.

    python scripts/tune.py table=all scale=tiny

Writes experiments/tuning/<scale>/{trials,chosen}.csv, which hparams=tuned reads. Not part of `make tables`.
"""

import hydra
import yaml
from omegaconf import DictConfig

from idlora.pipeline.compose import EXPERIMENTS, chosen_csv, compose_cell, plain, register_resolvers
from idlora.pipeline.override import override
from idlora.pipeline.request import chosen_names, chosen_tables
from idlora.pipeline.shell import command
from idlora.pipeline.tuning import search, trials_of
from idlora.report import load_grid
from idlora.report.grid import UNTUNED


@hydra.main(version_base="1.3", config_path="../configs", config_name="tune")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    grids = [load_grid(EXPERIMENTS / table) for table in chosen_tables(values["table"])]
    pairs = dict.fromkeys((e, m) for grid in grids for e, m, _ in grid.cells() if m != UNTUNED)
    experiments = chosen_names(values["experiments"], (experiment for experiment, _ in pairs), what="experiments")
    methods = chosen_names(values["methods"], (method for _, method in pairs), what="methods")
    chosen = [(experiment, method) for experiment, method in pairs if experiment in experiments and method in methods]
    trials = yaml.safe_load((EXPERIMENTS / "tuning" / "trials.yaml").read_text(encoding="utf-8"))
    passed = [override(key, values[key]) for key in ("data_root", "results_dir") if values[key] is not None]
    rates = trials["learning_rates"]
    shared = [
        *passed,
        override("train.learning_rate", rates[0]),
        override("data.validation_rows", trials["validation_rows"]),
        "threads=1",
    ]
    cells = [
        trial
        for experiment, method in chosen
        for trial in trials_of(
            compose_cell(experiment, method, scale=values["scale"], seed=trials["seed"], overrides=shared), rates
        )
    ]
    found = search(
        cells,
        folder=chosen_csv(values["scale"]).parent,
        workers=values["workers"],
        told=lambda t: print(
            f"{t.experiment} {t.method} {t.learning_rate:g}: {t.heldout_loss:.4f} {t.outcome}", flush=True
        ),
    )
    for choice in found:
        edge = "  (at the edge of the grid)" if choice.at_edge else ""
        print(f"{choice.experiment} {choice.method}: {choice.learning_rate:g}, loss {choice.heldout_loss:.4f}{edge}")


if __name__ == "__main__":
    register_resolvers()
    main()
