r"""Search the learning rates of tables: trials of every method alike, scored on validation rows.

    python scripts/tune.py table=all scale=tiny workers=2
    python scripts/tune.py scale=tiny 'methods=[mine]' 'experiments=[gsm8k_llama3]' \
        --config-dir <folder with method/mine.yaml>
"""

from reproduction.cells.compose import plain
from reproduction.cells.tuned_rates import chosen_csv
from reproduction.commands.script import hydra_command
from reproduction.commands.search import search
from reproduction.commands.trials import Trial
from reproduction.commands.tuning import asked_trials


@hydra_command("tune")
def main(config):
    def show(t: Trial) -> None:
        print(f"{t.experiment} {t.method} {t.learning_rate:g}: {t.validation_loss:.4f} {t.outcome}", flush=True)

    folder = chosen_csv(config.scale).parent
    for choice in search(asked_trials(plain(config)), folder=folder, workers=config.workers, on_trial=show):
        edge = "  (at the edge of the grid)" if choice.at_edge else ""
        print(f"{choice.experiment} {choice.method}: {choice.learning_rate:g}, loss {choice.validation_loss:.4f}{edge}")


if __name__ == "__main__":
    main()
