"""Parameter counts of every method on every base model, computed without weights and compared with the paper's.

A model is built and adapted by the functions of a training run, on the meta device, where a parameter has a shape but
no values; so the counts are those of a run.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.from_config import method_spec
from reproduction.cells.nearest import did_you_mean
from reproduction.cells.resolve_paths import locate_model
from reproduction.cli import NotComplete
from reproduction.paths import EXPERIMENTS
from reproduction.report import counts as report
from reproduction.report.counts import Compared, Count
from reproduction.report.documents import read_csv
from reproduction.report.grid import PAPER, Grid, load_grid
from reproduction.report.ordering import PARAMS
from reproduction.training.spec import MethodSpec, ModelSpec

SCALES = ("paper", "small", "tiny")
MULTITASK = "multitask_"
"""Prefix that turns a base key of the tables into the name of its experiment."""
OTHER_ROUTER = "idlora_inner"
"""ID-LoRA with the router of the paper's §4.2, shown with Table 6 although the paper does not count it."""


@functools.cache
def count(base: str, method: str, *, scale: str = "paper", rank: int | None = None) -> Count:
    """Count a method of configs/method on a base of the tables ("llama3"), at its own rank or at ``rank``."""
    spec = method_at(method, scale)
    if rank is not None:
        spec = dataclasses.replace(spec, arguments={**spec.arguments, "r": rank})
    return count_on(base_shape(base, scale), spec)


@functools.cache
def base_shape(base: str, scale: str) -> ModelSpec:
    """Return the model of a base of the tables at a scale, as a shape without weights."""
    model = plain(compose("train", [f"experiment={MULTITASK}{base}", f"scale={scale}"]).model)
    return parse_dataclass(ModelSpec, locate_model({**model, "init": "random"}), where="model")


@functools.cache
def method_at(method: str, scale: str) -> MethodSpec:
    """Return a method of configs/method at a scale."""
    return method_spec(plain(compose("train", [f"method={method}", f"scale={scale}"]).method))


def count_on(model: ModelSpec, method: MethodSpec) -> Count:
    """Count the parameters of a base model prepared for a method, without reading or allocating weights.

    Raises ValueError if the method does not fit the model's layers.
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


def report_counts(table: str | None, *, results_dir: Path | str) -> None:
    """Write one table of counts, or all of them, into <results_dir>/counts.

    Raises `ConfigError` for an unknown table, `NotComplete` if a number differs from the paper's.
    """
    if table is not None and table not in TABLES:
        raise ConfigError(f"there is no table={table}; {did_you_mean(table, TABLES)}")
    folder, compared = Path(results_dir) / "counts", []
    for name in [table] if table else TABLES:
        found, written = TABLES[name](folder)
        compared += found
        print("written: " + ", ".join(map(str, written)))
    if report.differing(compared):
        raise NotComplete(report.summary(compared))


def table6() -> list[Compared]:
    """Return the counts of Table 6, each rank followed by the other router's, which the paper does not print."""
    printed = [(row["base"], int(row["rank"]), row["method"], row["printed"]) for row in _paper_rows("table6")]
    other = [(base, rank, OTHER_ROUTER, "") for base, rank in dict.fromkeys(cell[:2] for cell in printed)]
    compared = []
    for base, rank, method, text in printed + other:
        found = count(base, method, rank=rank)
        ours = found.parameters_trainable
        compared.append(Compared(table="table6", base=base, count=found, printed=text, ours=ours))
    return sorted(compared, key=lambda each: each.count.rank)


def percentages() -> list[Compared]:
    """Return every share of trained parameters that the paper's tables print, in the paper's convention."""
    compared = []
    for table in sorted(path.parent.name for path in EXPERIMENTS.glob("table*/paper.csv")):
        for row in (row for row in _paper_rows(table) if row.get("column") == PARAMS):
            found = count(row["base"], row["method"])
            ours = found.percentages["params_pct_paper"]
            compared.append(Compared(table=table, base=row["base"], count=found, printed=row["value"], ours=ours))
    return compared


def inventory() -> list[tuple[str, Count]]:
    """Return (scale, count) of every pair of base model and method in the tables, each once."""
    counted = []
    for scale in SCALES:
        own = [grid.at(scale) for grid in _grids() if grid.is_at(scale)]
        pairs = sorted({(base, method) for grid in own for base in grid.bases for method in grid.methods})
        counted += [(scale, count(base, method, scale=scale)) for base, method in pairs]
    return list(dict.fromkeys(counted))  # the small scale has one model for all bases


def figure1c() -> dict[str, list[Count]]:
    """Return the counts of Figure 1(c): Table 6's methods by model at their configs' ranks, and Table 6 by rank."""
    table = [each.count for each in table6() if each.printed]
    methods = dict.fromkeys(each.method for each in table)
    bases = sorted({base for grid in _grids() for base, words in grid.bases.items() if PAPER in words["model"]})
    models = [count(base, method) for base in bases for method in methods]
    return {"model": sorted(models, key=lambda each: each.base_parameters), "rank": table}


def _grids() -> list[Grid]:
    return [load_grid(path.parent) for path in sorted(EXPERIMENTS.glob("*/grid.yaml"))]


def _paper_rows(table: str) -> list[dict[str, str]]:
    return read_csv(EXPERIMENTS / table / "paper.csv")


def _report_table6(folder: Path) -> tuple[list[Compared], list[Path]]:
    compared = table6()
    written = report.write_table6(compared, folder)
    print(written[1].read_text(encoding="utf-8"))
    return compared, written


def _report_percentages(folder: Path) -> tuple[list[Compared], list[Path]]:
    compared = percentages()
    pairs = dict.fromkeys((each.base, each.count.method) for each in compared)
    embedded = [count(base, method, scale="tiny") for base, method in pairs]
    written = report.write_percentages(compared, embedded, folder)
    print(written[1].read_text(encoding="utf-8"))
    return compared, written


TABLES: dict[str, Callable[[Path], tuple[list[Compared], list[Path]]]] = {
    "table6": _report_table6,
    "percentages": _report_percentages,
    "figure1c": lambda folder: ([], report.write_figure1c(figure1c(), folder)),
    "counts": lambda folder: ([], report.write_counts(inventory(), folder)),
}
"""Name → function of a folder that writes the table and returns the numbers to compare with the paper, and files."""
