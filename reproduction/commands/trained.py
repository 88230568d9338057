"""Output of scripts/train.py for a trained cell: how its steps were split, and the command that evaluates it."""

from collections.abc import Iterable, Iterator

from hydra.core.hydra_config import HydraConfig

from reproduction.cells.cell import Cell
from reproduction.cells.compose import own_folders
from reproduction.cells.override import override, pasted


def lines_on(cell: Cell, *, before: bool, benchmarks: Iterable[str]) -> Iterator[str]:
    """Yield the lines on a finished run: its folder, its training costs unless trained ``before``, the next command.

    ``benchmarks`` are the keys of the config's ``eval``.
    """
    yield f"{'already trained' if before else 'trained'}: {cell.run.folder}"
    if not before and cell.method.kind != "none":
        resources = cell.run.resources
        seconds = resources["startup_seconds"]
        parts = ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items())
        checkpointed = ", gradient checkpointing" if resources["gradient_checkpointing"] else ""
        cut = f"{resources['accumulation']} passes × {resources['micro_batch_size']} rows, {resources['passes']}"
        yield f"{cut}{checkpointed}; first step after {sum(seconds.values()):.1f} s ({parts})"
    yield f"next: {_evaluation(cell, benchmarks)}"


def _evaluation(cell: Cell, benchmarks: Iterable[str]) -> str:
    """Return the command that evaluates the cell on the benchmarks of this command."""
    values = {"run": cell.run.folder}
    if cell.data_root is not None and cell.scale != "tiny":
        values["data_root"] = cell.data_root
    if any(each.task.runs_code for each in cell.protocols):
        values["allow_code_execution"] = True
    asked = HydraConfig.get()
    named = [each for each in asked.overrides.task if each.lstrip("+").startswith(("eval", "protocol=", "revisions."))]
    if any("eval." in each for each in named) and not any(each.startswith("eval=") for each in named):
        chosen = asked.runtime.choices.get("eval") or list(benchmarks)  # Hydra names no choice if there are several
        named.insert(0, override("eval", chosen))
    return pasted("evaluate", values, *named, *(f"--config-dir={folder}" for folder in own_folders()))
