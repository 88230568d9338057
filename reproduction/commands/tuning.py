"""The learning-rate search: the same trials for every method, scored on validation rows that they do not train on.

trials.csv contains every trial, chosen.csv each setting's rate with the lowest validation loss, which configs read
through hparams=tuned (`reproduction.cells.tuned_rates`). longer.csv contains the trials of more steps, which do not
affect the choice. Test items are never used.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproduction.cells.cell import Cell
from reproduction.cells.compose import group_files
from reproduction.cells.from_config import compose_cell
from reproduction.cells.override import override
from reproduction.cells.tuned_rates import CHOOSING, setting, trials_plan
from reproduction.commands.tables import chosen_names, chosen_tables
from reproduction.commands.trials import trials_of
from reproduction.paths import EXPERIMENTS
from reproduction.report import load_grid
from reproduction.report.grid import UNTUNED


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The requested trials of a search: each a cell of an experiment and method at a learning rate.

    Args:
        trials: the cells.
        longer: setting → a cell of more steps at the paper's rate, repeated at the rate chosen for the setting.
        extensions: as in `TrialsPlan`.
        longer_steps: trials of this many steps also record their held-out loss.
    """

    trials: Sequence[Cell]
    longer: Mapping[str, Cell]
    extensions: int = 0
    longer_steps: int | None = None


def asked_trials(values: Mapping[str, Any]) -> Asked:
    """Return the trials that the resolved configs/tune.yaml requests."""
    plan = trials_plan(values["scale"])
    shared = [
        *(override(key, values[key]) for key in ("data_root", "results_dir") if values[key] is not None),
        override(f"data.{CHOOSING}", plan.validation_rows),
        *values["overrides"],
    ]

    def cell(experiment: str, method: str, *more: str) -> Cell:
        overrides = ["threads=1", "launch=single", *shared, *more]
        return compose_cell(experiment, method, scale=values["scale"], seed=plan.seed, overrides=overrides).as_tried

    trials, longer = [], {}
    for experiment, method in asked_pairs(values):
        first = cell(experiment, method, override("train.learning_rate", plan.learning_rates[0]))
        trials += trials_of(first, plan.rates(method, kind=first.method.kind, data=first.data.name))
        if method in plan.longer_for.get(first.data.name, ()):
            at = override("train.max_steps", plan.longer_steps)
            longer.setdefault(setting(first.config), cell(experiment, method, "hparams=paper", at))
    trials.sort(key=lambda each: setting(each.config) not in longer)  # the long trials wait for what these choose
    return Asked(trials=trials, longer=longer, extensions=plan.extensions, longer_steps=plan.longer_steps)


def asked_pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (experiment, method) pairs for ``table``, ``experiments`` and ``methods`` of configs/tune.yaml.

    If both experiments and methods are named, every experiment is paired with every method. Otherwise the tables' pairs
    are used; a name that no table has, but configs/ or --config-dir, is paired with everything in the tables. Raises
    `ConfigError` for a name that is in neither.
    """
    scale = values["scale"]
    grids = [load_grid(EXPERIMENTS / table).at(scale) for table in chosen_tables(values["table"], scale)]
    pairs = dict.fromkeys((e, m) for grid in grids for e, m, _ in grid.cells() if m != UNTUNED)
    known = {"experiments": dict.fromkeys(e for e, _ in pairs), "methods": dict.fromkeys(m for _, m in pairs)}

    def named(key: str) -> list[str]:
        if values[key] is None:
            return list(known[key])
        files = [file.stem for file in group_files(key.removesuffix("s")) if file.stem != UNTUNED]
        return chosen_names(values[key], [*known[key], *files], what=key)

    each_with_each = values["experiments"] is not None and values["methods"] is not None
    return [
        (experiment, method)
        for experiment, method in itertools.product(named("experiments"), named("methods"))
        if each_with_each
        or (experiment, method) in pairs
        or experiment not in known["experiments"]
        or method not in known["methods"]
    ]
