"""Train one cell of a table and save it; scripts/evaluate.py scores it.

python scripts/train.py experiment=gsm8k_llama3 method=idlora scale=tiny
python scripts/train.py experiment=gsm8k_llama3 method=idlora scale=tiny method.arguments.r=8 seed=1 hparams=default
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from reproduction.cells.cell import Cell
from reproduction.cells.compose import cell_from_config
from reproduction.cells.config_folders import own_folders
from reproduction.cells.override import override, pasted
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.preflight import NotReady, require, slowness
from reproduction.running.progress import display
from reproduction.running.train import train_cell
from reproduction.training.launching import rank


def _lacking(cell: Cell) -> NotReady | None:
    """What this machine lacks for the training; what evaluating needs, scripts/evaluate.py asks."""
    try:
        require([replace(cell, protocols=())], scale=cell.scale, results_dir=cell.results_dir)
    except NotReady as lacking:
        return lacking
    return None


def _evaluation(cell: Cell, config: DictConfig) -> str:
    """The command that evaluates the cell on what this one named."""
    values = {"run": cell.run.folder}
    if cell.data_root is not None and cell.scale != "tiny":
        values["data_root"] = cell.data_root
    if any(each.task.runs_code for each in cell.protocols):
        values["allow_code_execution"] = True
    asked = HydraConfig.get()
    named = [each for each in asked.overrides.task if each.lstrip("+").startswith(("eval", "protocol=", "revisions."))]
    if any("eval." in each for each in named) and not any(each.startswith("eval=") for each in named):
        chosen = asked.runtime.choices.get("eval") or list(config.eval)  # of several Hydra names none
        named.insert(0, override("eval", chosen))
    return pasted("evaluate", values, *named, *(f"--config-dir={folder}" for folder in own_folders()))


def _account(resources: Mapping[str, Any]) -> str:
    """How the steps were cut into passes, and what the first of them waited for."""
    seconds, order = resources["startup_seconds"], ("imports", "base", "data", "adapter", "trainer")
    parts = ", ".join(f"{name} {seconds[name]:.1f}" for name in order if name in seconds)
    checkpointed = ", gradient checkpointing" if resources["gradient_checkpointing"] else ""
    cut = f"{resources['accumulation']} passes × {resources['micro_batch_size']} rows, {resources['passes']}"
    return f"{cut}{checkpointed}; first step after {sum(seconds.values()):.1f} s ({parts})"


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
@command
def main(config: DictConfig) -> None:
    cell = cell_from_config(config)
    lacking = None if cell.run.done else _lacking(cell)
    if rank() > 0:  # of a launch that it joins: the first one speaks
        if lacking is not None:
            raise SystemExit(2)
        if not cell.run.done:
            train_cell(cell)
        return
    if lacking is not None:
        raise lacking
    if cell.run.done:
        print(f"already trained: {cell.run.folder}")
    else:
        print("\n".join([*slowness([cell]), cell.division]), flush=True)
        with display(1) as progress:
            progress.cell(cell.title)
            train_cell(cell, progress)
            progress.finished(cell.title)
        print(f"trained: {cell.run.folder}")
        if cell.method.kind != "none":
            print(_account(cell.run.resources))
    print(f"next: {_evaluation(cell, config)}")


if __name__ == "__main__":
    register_resolvers()
    main()
