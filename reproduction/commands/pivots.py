"""What pivots a base gives, and what a finished run's router and B make of them: one row for each type of module."""

import csv
import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reproduction.cells.compose import plain
from reproduction.cells.config_schema import ConfigError, typed
from reproduction.cells.from_config import method_spec
from reproduction.cells.resolve_paths import locate_data, locate_model, locate_revisions, relocate_model
from reproduction.records import Run
from reproduction.report.collect import write_csv
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec

KEY = ("base", "method", "run", "k", "r", "seed")
"""The columns that tell one command's rows in pivots.csv from another's: they are replaced together."""

ROWS = {
    "rows": ("rows",),
    "k·r/rows": ("share",),
    "cluster sizes": ("cluster_min", "cluster_median", "cluster_max"),
    "norm": ("norm_ratio",),
}
"""Headings of the first table, and the columns of pivots.csv under each."""

MIXTURES = {
    "r": ("rank_bound",),
    "k·r": ("rank_bound_paper",),
    "eff. rank Σ A_i/k": ("mixture_effective_rank",),
    "eff. rank update": ("update_effective_rank",),
    "rank update": ("update_rank",),
    "entropy": ("router_entropy",),
}
"""The same of the last table; the one between has the overlaps."""

LEGEND = (
    "cluster sizes: smallest/median/largest number of rows in the clusters that PMRC makes. norm: mean norm of the "
    "pivots over that of the other rows. Overlap: share of the pivots that a selection picks too; by chance it is "
    "k·r/rows. eff. rank: exp of the entropy of the singular values divided by their sum, of the even mixture "
    "Σ A_i / k and, for a run, of the update at the router's mean mixture. rank: the largest rank of that update; it "
    "is at most r, where the paper says k·r. entropy: of the router's α, over log k, mean over the prompts' tokens; 1 "
    "is an even mixture. Means over the layers."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """What scripts/pivots.py looks at: a base and a method, or a finished run of one, which then has prompts too."""

    scale: str
    model: ModelSpec
    method: MethodSpec
    seed: int
    data: DataSpec | None
    data_root: Path | None
    run: Path | None
    prompts: int
    threads: int
    revisions: Mapping[str, str]
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> "Inspection":
        """From a composed configs/pivots.yaml; a run says itself what it was trained on.

        Raises `ConfigError` for a folder that is no finished run, a base that is not there, or no prompts at all.
        """
        if config.prompts < 1:
            raise ConfigError(f"prompts={config.prompts}: the router needs one prompt at least")
        run = None if config.run is None else Run(Path(config.run))
        if run is not None and not run.done:
            raise ConfigError(f"run={config.run} is no finished run (its state is {run.state}): train it first")
        recorded = {} if run is None else run.config
        scale = recorded.get("scale", config.scale)
        if run is None:
            data = data_root = None
            model, method = locate_model(plain(config.model)), method_spec(plain(config.method))
        else:
            data_root = locate_data(config.data.root, scale=scale, results_dir=config.results_dir)
            data_keys = {field.name for field in dataclasses.fields(DataSpec)}
            kept = {key: value for key, value in recorded["data"].items() if key in data_keys}
            data = typed(DataSpec, kept | {"limit": config.prompts, "packing": False}, where="data")
            model, method = relocate_model(recorded["model"]), typed(MethodSpec, recorded["method"], where="method")
        return cls(
            scale=scale,
            model=typed(ModelSpec, model, where="model"),
            method=method,
            seed=recorded.get("seed", config.seed),
            data=data,
            data_root=data_root,
            run=None if run is None else run.folder,
            prompts=config.prompts,
            threads=config.threads,
            revisions=locate_revisions(config.revisions),
            out=Path(config.results_dir) / scale / "pivots.csv",
        )


def report_pivots(asked: Inspection, console: Console | None = None) -> None:
    """Print the rows of a base or run, and put them into pivots.csv in place of its earlier ones."""
    rows = inspect(asked)
    console = console or Console()
    for table in _tables(asked, rows):
        console.print(table)
    console.print(LEGEND)
    replace_rows(asked.out, rows)
    console.print(f"written: {asked.out}", soft_wrap=True, markup=False, highlight=False)


def inspect(asked: Inspection) -> list[dict[str, Any]]:
    """One row for each type of adapted module (q_proj, …), in the order of the model.

    Raises `ConfigError` for a method that has no pivots.
    """
    import torch  # seconds to import

    from reproduction.training import build_adapted, build_base, load_finished

    torch.set_num_threads(asked.threads)
    if asked.run is None:
        model, tokenizer = build_adapted(build_base(asked.model)[0], asked.method, asked.seed), None
    else:
        model, tokenizer = load_finished(asked.run, asked.model, asked.method)
    tuner = getattr(model, "base_model", None)
    if not hasattr(tuner, "pivot_statistics"):
        raise ConfigError(f"method={asked.method.name} has no pivots; those of idlora and its variants have")
    modules = tuner.pivot_statistics(inputs=() if tokenizer is None else _prompts(asked, tokenizer))
    head = {
        "base": asked.model.name,
        "method": asked.method.name,
        "run": asked.run.name if asked.run else "",
        "seed": asked.seed,
        "checksum": (asked.model.checksum or "")[:12],  # of the base: rows of one that is no more are known by it
    }
    kinds: dict[str, list[Any]] = {}
    for name, found in modules.items():
        kinds.setdefault(name.rpartition(".")[2], []).append(found)
    return [head | {"module": kind} | _summary(found) for kind, found in kinds.items()]


def _prompts(asked: Inspection, tokenizer: Any) -> Iterator[Any]:
    """Token ids (1, length) of the prompts of the run's training set, responses left out."""
    import torch

    from reproduction.training import build_data

    for row in build_data(asked.data, tokenizer, root=asked.data_root, revisions=asked.revisions)[0].rows:
        length = next(index for index, label in enumerate(row["labels"]) if label >= 0)  # the loss sees responses
        yield torch.tensor([row["input_ids"][:length]])


def _summary(layers: list[Any]) -> dict[str, Any]:
    """The columns of one type of module from its layers' `PivotStatistics`."""
    first = layers[0]
    sizes = [size for layer in layers for size in layer.cluster_sizes]

    def over_layers(name: str, summarize: Callable[[list[float]], float] = statistics.fmean) -> float | None:
        values = [value for layer in layers if (value := getattr(layer, name)) is not None]
        return summarize(values) if values else None

    return {
        "layers": len(layers),
        "rows": first.rows,
        "columns": first.columns,
        "k": first.k,
        "r": first.r,
        "share": first.k * first.r / first.rows,
        "cluster_min": min(sizes),
        "cluster_median": statistics.median(sizes),
        "cluster_max": max(sizes),
        "norm_ratio": over_layers("norm_ratio"),
        **{
            f"overlap_{selection}": statistics.fmean(layer.overlaps[selection] for layer in layers)
            for selection in first.overlaps
        },
        "mixture_effective_rank": over_layers("mixture_rank"),
        "update_effective_rank": over_layers("update_effective_rank"),
        "update_rank": over_layers("update_rank", max),
        "rank_bound": first.r,
        "rank_bound_paper": first.k * first.r,
        "router_entropy": over_layers("router_entropy"),
    }


def replace_rows(path: Path, rows: list[Mapping[str, Any]], *, key: Sequence[str] = KEY) -> None:
    """Put rows into a CSV in place of those with the same values of ``key``; the others stay.

    Raises `ConfigError` where the file has other columns.
    """
    printed = [{name: spelt(value, 6) for name, value in row.items()} for row in rows]
    kept: list[Mapping[str, Any]] = []
    columns = list(rows[0])
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != columns:
                raise ConfigError(f"{path} has other columns than this version writes: delete it and run this again")
            own = {tuple(row[name] for name in key) for row in printed}
            kept = [row for row in reader if tuple(row[name] for name in key) not in own]
    write_csv(path, columns, sorted([*kept, *printed], key=lambda row: [row[name] for name in key]))


def spelt(value: Any, digits: int = 3) -> str:
    """A value of the CSV, or of the printed tables, where it has fewer digits; None is empty."""
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _tables(asked: Inspection, rows: list[Mapping[str, Any]]) -> Iterable[Table]:
    """The rows as three tables, none wider than a terminal: what the pivots are, and what is made of them."""
    who = f"{asked.model.label}, {asked.method.label}" + (f", {asked.run.name}" if asked.run else "")
    overlaps = {name.split("_", 1)[1].replace("_", " "): (name,) for name in rows[0] if name.startswith("overlap_")}
    yield _table(f"Pivots: {who}", rows, ROWS)
    yield _table("Overlap of the pivots with each selection", rows, overlaps)
    yield _table("Mixtures of the A_i, and the update", rows, MIXTURES)


def _table(title: str, rows: list[Mapping[str, Any]], columns: Mapping[str, tuple[str, ...]]) -> Table:
    table = Table(title=Text(title), box=rich.box.SIMPLE_HEAD, title_justify="left")
    table.add_column("module", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = ["/".join(spelt(row[name]) for name in names) or "—" for names in columns.values()]
        table.add_row(f"{row['module']} x{row['layers']}", *cells)
    return table
