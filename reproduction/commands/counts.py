"""Every method on every base model, counted and not run: models that have sizes and no weights.

A model is built and adapted by the functions that build a training run, here on the meta device, where a parameter has
a shape and no values; what is counted is what a run would train. Left out: any closed form (the tests have them).
"""

import csv
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import typed
from reproduction.cells.from_config import method_spec
from reproduction.cells.resolve_paths import locate_model
from reproduction.cli import NotComplete
from reproduction.paths import EXPERIMENTS
from reproduction.report.counts import Compared, Count, differing, summary
from reproduction.report.grid import PAPER, load_grid
from reproduction.report.ordering import PARAMS
from reproduction.training.spec import MethodSpec, ModelSpec

SCALES = ("paper", "small", "tiny")
MULTITASK = "multitask_"
"""Before a base key of the tables: the name of the experiment that every base has."""
OTHER_ROUTER = "idlora_inner"
"""ID-LoRA with the router of the paper's §4.2, which stands beside Table 6's though the paper does not count it."""


def count(base: str, method: str, *, scale: str = "paper", rank: int | None = None) -> Count:
    """What a method of configs/method trains on a base of the tables ("llama3"), at its own rank or at ``rank``.

    Raises `ConfigError` for an unknown base or method, ValueError where the method does not fit the base's layers.
    """
    own = method_at(method, scale).arguments.get("r")
    return _count(base, method, scale=scale, rank=own if rank is None else rank)


@functools.cache
def _count(base: str, method: str, *, scale: str, rank: int | None) -> Count:
    spec = method_at(method, scale)
    if rank is not None:
        spec = dataclasses.replace(spec, arguments={**spec.arguments, "r": rank})
    return count_on(base_shape(base, scale), spec)


@functools.cache
def base_shape(base: str, scale: str) -> ModelSpec:
    """The model of a base of the tables at a scale, as a shape whose weights are not read."""
    model = plain(compose("train", [f"experiment={MULTITASK}{base}", f"scale={scale}"]).model)
    return typed(ModelSpec, locate_model({**model, "init": "random"}), where="model")


@functools.cache
def method_at(method: str, scale: str) -> MethodSpec:
    """A method of configs/method at a scale."""
    return method_spec(plain(compose("train", [f"method={method}", f"scale={scale}"]).method))


def count_on(model: ModelSpec, method: MethodSpec) -> Count:
    """The parameters of a base model made ready for a method; no weight is read, drawn or kept.

    Raises ValueError where the method does not fit the model's layers.
    """
    import torch  # seconds to import

    from reproduction.training import build_adapted, build_model, count_parameters

    with torch.device("meta"):
        base = build_model(model)
        base_parameters = count_parameters(base)["parameters_total"]
        counts = count_parameters(build_adapted(base, method, seed=0))
    return Count(
        model=model.name,
        model_label=model.label,
        method=method.name,
        method_label=method.label,
        rank=method.arguments.get("r"),
        base_parameters=base_parameters,
        **counts,
    )


def table6() -> list[Compared]:
    """Every count of Table 6, and after each rank's the other router's, which the paper does not print."""
    printed = list(_paper_rows(EXPERIMENTS / "table6"))
    cells = [(row["base"], int(row["rank"]), row["method"], row["printed"]) for row in printed]
    cells += [(base, rank, OTHER_ROUTER, "") for base, rank in dict.fromkeys(cell[:2] for cell in cells)]
    compared = []
    for base, rank, method, text in cells:
        counted = count(base, method, rank=rank)
        compared.append(
            Compared(table="table6", base=base, count=counted, printed=text, ours=counted.parameters_trainable)
        )
    return sorted(compared, key=lambda each: each.count.rank)


def percentages() -> list[Compared]:
    """Every share of trained parameters that a table of the paper prints, in its convention."""
    compared = []
    for folder in sorted(path.parent for path in EXPERIMENTS.glob("table*/paper.csv")):
        for row in _paper_rows(folder):
            if row.get("column") == PARAMS:
                counted = count(row["base"], row["method"])
                ours = counted.percentages["params_pct_paper"]
                compared.append(
                    Compared(table=folder.name, base=row["base"], count=counted, printed=row["value"], ours=ours)
                )
    return compared


def embedded_twins(compared: list[Compared]) -> list[Count]:
    """The same bases and methods at the embedded scale, each once."""
    pairs = dict.fromkeys((each.base, each.count.method) for each in compared)
    return [count(base, method, scale="tiny") for base, method in pairs]


def inventory() -> list[tuple[str, Count]]:
    """(scale, count) of every base model and method that some table pairs, each once."""
    grids = [load_grid(path.parent) for path in sorted(EXPERIMENTS.glob("*/grid.yaml"))]
    counted = []
    for scale in SCALES:
        own = [grid.at(scale) for grid in grids if grid.is_at(scale)]
        pairs = sorted({(base, method) for grid in own for base in grid.bases for method in grid.methods})
        counted += [(scale, count(base, method, scale=scale)) for base, method in pairs]
    return list(dict.fromkeys(counted))  # at the small scale one model stands in for all bases


def figure1c() -> dict[str, list[Count]]:
    """The counts of Figure 1(c): Table 6's methods by model, at the ranks of their configs, and Table 6 by rank."""
    table = [each.count for each in table6() if each.printed]
    methods = dict.fromkeys(each.method for each in table)
    models = [count(base, method) for base in bases() for method in methods]
    return {"model": sorted(models, key=lambda each: each.base_parameters), "rank": table}


def bases() -> list[str]:
    """The base keys of the tables that have a model of the paper's."""
    grids = (load_grid(path.parent) for path in EXPERIMENTS.glob("*/grid.yaml"))
    return sorted({base for grid in grids for base, words in grid.bases.items() if PAPER in words["model"]})


def require_agreement(compared: list[Compared]) -> None:
    """Raise `NotComplete` where a number is not the one that the paper prints."""
    if differing(compared):
        raise NotComplete(summary(compared))


def _paper_rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "paper.csv").open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
