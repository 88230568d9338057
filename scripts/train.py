"""Train one cell of a table and save it; scripts/evaluate.py scores it.

python scripts/train.py experiment=gsm8k_llama3 method=idlora scale=tiny
python scripts/train.py experiment=gsm8k_llama3 method=idlora scale=tiny method.arguments.r=8 seed=1
"""

from dataclasses import replace

import hydra
from omegaconf import DictConfig

from idlora.evals.registry import runs_code
from idlora.pipeline.cell import train_cell
from idlora.pipeline.compose import cell_from_config, register_resolvers
from idlora.pipeline.preflight import fitted, require
from idlora.pipeline.progress import display
from idlora.pipeline.shell import command
from idlora.training.launching import rank


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
@command
def main(config: DictConfig) -> None:
    cell = cell_from_config(config)
    if rank() > 0:  # of a launch that it joins: the first one speaks
        if not cell.run.done:
            train_cell(cell)
        return
    if cell.run.done:
        print(f"already trained: {cell.run.folder}")
    else:
        require([replace(cell, protocols=())], scale=cell.scale, results_dir=cell.results_dir)
        cell = fitted(cell)
        print(cell.division, flush=True)
        with display(1) as progress:
            progress.cell(cell.title)
            train_cell(cell, progress)
            progress.finished(cell.title)
        print(f"trained: {cell.run.folder}")
    allow = " allow_code_execution=true" if any(runs_code(each.benchmark) for each in cell.protocols) else ""
    print(f"next: python scripts/evaluate.py run={cell.run.folder}{allow}")


if __name__ == "__main__":
    register_resolvers()
    main()
