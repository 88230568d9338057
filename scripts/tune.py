"""Search the learning rates of tables: trials of every method alike, scored on validation rows.

    python scripts/tune.py table=all scale=tiny

Writes experiments/tuning/<scale>/{trials,chosen,longer}.csv; hparams=tuned reads chosen.csv. Not part of `make tables`.
"""

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.resolvers import register_resolvers
from reproduction.cells.tuned_rates import chosen_csv
from reproduction.cli import command
from reproduction.commands.search import search
from reproduction.commands.tuning import asked_trials


@hydra.main(version_base="1.3", config_path="../configs", config_name="tune")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    found = search(
        asked_trials(values),
        folder=chosen_csv(values["scale"]).parent,
        workers=values["workers"],
        told=lambda t: print(
            f"{t.experiment} {t.method} {t.learning_rate:g}: {t.validation_loss:.4f} {t.outcome}", flush=True
        ),
    )
    for choice in found:
        edge = "  (at the edge of the grid)" if choice.at_edge else ""
        print(f"{choice.experiment} {choice.method}: {choice.learning_rate:g}, loss {choice.validation_loss:.4f}{edge}")


if __name__ == "__main__":
    register_resolvers()
    main()
