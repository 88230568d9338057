r"""Train one cell of a table and save it; scripts/evaluate.py scores it.

    python scripts/train.py experiment=gsm8k_llama3 method=idlora scale=tiny
    python scripts/train.py experiment=gsm8k_llama3 method=idlora scale=tiny \
        method.arguments.r=8 seed=1 hparams=default

A tuned learning rate belongs to one setting: a changed one needs hparams=default,
train.learning_rate=… or a search (make tune).
"""

# cell_from_config     the config as a typed, checked cell                     reproduction/cells/from_config.py
# require_training     raises with everything that this machine lacks          reproduction/preflight
# train_cell           in this process, or in one for each GPU (running/ddp.py):
#                      base, data, adapter, then the steps, then saved         reproduction/running/train.py

from reproduction.cells.from_config import cell_from_config
from reproduction.commands.script import hydra_command
from reproduction.commands.trained import lines_on
from reproduction.preflight import require_training, slowness
from reproduction.running.progress import display
from reproduction.running.train import train_cell
from reproduction.training.launching import rank


@hydra_command("train")
def main(config):
    cell = cell_from_config(config)
    before, first = cell.run.done, rank() == 0  # in a launch, only rank 0 prints
    if not before:
        require_training(cell)
        if first:
            print("\n".join([*slowness([cell]), cell.division]), flush=True)
        with display(1, shown=first) as progress:
            progress.cell(cell.title)
            train_cell(cell, progress)
            progress.finished(cell.title)
    if first:
        print("\n".join(lines_on(cell, before=before, benchmarks=config.eval)))


if __name__ == "__main__":
    main()
