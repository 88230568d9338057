"""Benchmarks and judges by name: a module in `benchmarks/` or `judges/` is one, by lying there.

A benchmark's module has

    check(protocol) -> None                        raises ValueError for settings that it does not have
    run(prompts, *, protocol, ask, …) -> records   one per item and sample, made by `idlora.evals.items.record`

    RUNS_CODE = True                               where it runs what the model writes; else not there

and a judge's module has `refuses(prompt, response) -> bool`.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType


def names(kind: str) -> list[str]:
    """Names of all "benchmarks" or "judges"."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).with_name(kind))]))


def load(kind: str, name: str) -> ModuleType:
    """The module of one of them. Raises ValueError for a name that is not there."""
    known = names(kind)
    if name not in known:
        raise ValueError(f"{name!r} is none of the {kind}: choose one of {', '.join(known)}")
    return importlib.import_module(f"idlora.evals.{kind}.{name}")


def runs_code(benchmark: str) -> bool:
    """Whether a benchmark runs what the model writes, and so needs permission. Raises as `load`."""
    return getattr(load("benchmarks", benchmark), "RUNS_CODE", False)
