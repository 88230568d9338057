"""Search the learning rates of tables: trials of every method alike, scored on validation rows.

    python scripts/tune.py table=all scale=tiny

Writes experiments/tuning/<scale>/{trials,chosen,longer}.csv; hparams=tuned reads chosen.csv. Not part of `make tables`.
"""

import hydra
from omegaconf import DictConfig

from idlora.pipeline.compose import plain
from idlora.pipeline.rates import chosen_csv
from idlora.pipeline.resolvers import register_resolvers
from idlora.pipeline.search import search
from idlora.pipeline.shell import command
from idlora.pipeline.tuning import asked_trials


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
