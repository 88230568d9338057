"""What scripts/train.py says of a cell that is trained: how its steps were cut, and the command that evaluates it."""

from collections.abc import Iterable, Iterator

from hydra.core.hydra_config import HydraConfig

from reproduction.cells.cell import Cell
from reproduction.cells.compose import own_folders
from reproduction.cells.override import override, pasted


def lines_on(cell: Cell, *, before: bool, benchmarks: Iterable[str]) -> Iterator[str]:
    """The lines on a finished run: where it lies, what its training took unless it was trained ``before``, what next.

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
    """The command that evaluates the cell on what this one named."""
    values = {"run": cell.run.folder}
    if cell.data_root is not None and cell.scale != "tiny":
        values["data_root"] = cell.data_root
    if any(each.task.runs_code for each in cell.protocols):
        values["allow_code_execution"] = True
    asked = HydraConfig.get()
    named = [each for each in asked.overrides.task if each.lstrip("+").startswith(("eval", "protocol=", "revisions."))]
    if any("eval." in each for each in named) and not any(each.startswith("eval=") for each in named):
        chosen = asked.runtime.choices.get("eval") or list(benchmarks)  # of several Hydra names none
        named.insert(0, override("eval", chosen))
    return pasted("evaluate", values, *named, *(f"--config-dir={folder}" for folder in own_folders()))
