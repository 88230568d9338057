"""Statistics of a base's pivots and of a finished run's router and B: one row for each type of module."""

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
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.from_config import method_spec
from reproduction.cells.resolve_paths import locate_data, locate_model, locate_revisions, relocate_model
from reproduction.records import Run
from reproduction.report.documents import read_csv, write_csv
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec

KEY = ("base", "method", "run", "k", "r", "seed")
"""Columns of pivots.csv that identify a command; its rows are replaced together."""

PIVOTS = {
    "rows": ("rows",),
    "k·r/rows": ("share",),
    "cluster sizes": ("cluster_min", "cluster_median", "cluster_max"),
    "norm": ("norm_ratio",),
}
MIXTURES = {
    "r": ("rank_bound",),
    "k·r": ("rank_bound_paper",),
    "eff. rank Σ A_i/k": ("mixture_effective_rank",),
    "eff. rank update": ("update_effective_rank",),
    "rank update": ("update_rank",),
    "entropy": ("router_entropy",),
}
"""Headings of the printed tables → columns of pivots.csv under each."""

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
    """A base and a method whose pivots are inspected, or a finished run of them with prompts (``data``)."""

    model: ModelSpec
    method: MethodSpec
    seed: int
    threads: int
    revisions: Mapping[str, str]
    out: Path
    run: Path | None = None
    data: DataSpec | None = None
    data_root: Path | None = None

    @classmethod
    def from_config(cls, config: DictConfig) -> "Inspection":
        """Build an inspection from a composed configs/pivots.yaml; a run's data come from its records."""
        if config.prompts < 1:
            raise ConfigError(f"prompts={config.prompts}: the router needs one prompt at least")
        shared = {"threads": config.threads, "revisions": locate_revisions(config.revisions)}
        if config.run is None:
            return cls(
                model=parse_dataclass(ModelSpec, locate_model(plain(config.model)), where="model"),
                method=method_spec(plain(config.method)),
                seed=config.seed,
                out=Path(config.results_dir) / config.scale / "pivots.csv",
                **shared,
            )
        run = Run(Path(config.run))
        if not run.done:
            raise ConfigError(f"run={config.run} is no finished run (its state is {run.state}): train it first")
        recorded = run.config
        names = {field.name for field in dataclasses.fields(DataSpec)}
        data = {key: value for key, value in recorded["data"].items() if key in names}
        return cls(
            model=parse_dataclass(ModelSpec, relocate_model(recorded["model"]), where="model"),
            method=parse_dataclass(MethodSpec, recorded["method"], where="method"),
            seed=recorded["seed"],
            data=parse_dataclass(DataSpec, data | {"limit": config.prompts, "packing": False}, where="data"),
            data_root=locate_data(config.data.root, scale=recorded["scale"], results_dir=config.results_dir),
            run=run.folder,
            out=Path(config.results_dir) / recorded["scale"] / "pivots.csv",
            **shared,
        )


def report_pivots(asked: Inspection, console: Console | None = None) -> None:
    """Print the rows of a base or run, and replace its earlier ones in pivots.csv."""
    rows, console = inspect(asked), console or Console()
    whose = f"{asked.model.label}, {asked.method.label}" + (f", {asked.run.name}" if asked.run else "")
    overlaps = {name.split("_", 1)[1].replace("_", " "): (name,) for name in rows[0] if name.startswith("overlap_")}
    for title, columns in (
        (f"Pivots: {whose}", PIVOTS),
        ("Overlap of the pivots with each selection", overlaps),
        ("Mixtures of the A_i, and the update", MIXTURES),
    ):
        table = terminal_table(title, ["module", *columns])
        for row in rows:
            cells = ["/".join(spelled(row[name]) for name in names) or "—" for names in columns.values()]
            table.add_row(f"{row['module']} x{row['layers']}", *cells)
        console.print(table)
    console.print(LEGEND)
    replace_rows(asked.out, rows)
    console.print(f"written: {asked.out}", soft_wrap=True, markup=False, highlight=False)


def inspect(asked: Inspection) -> list[dict[str, Any]]:
    """Return one row for each type of adapted module (q_proj, …) and rank, in the order of the model."""
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
        "checksum": (asked.model.checksum or "")[:12],
    }
    kinds: dict[tuple[str, int], list[Any]] = {}
    for name, found in modules.items():
        kinds.setdefault((name.rpartition(".")[2], found.r), []).append(found)
    return [head | {"module": kind} | _summary(found) for (kind, _), found in kinds.items()]


def _prompts(asked: Inspection, tokenizer: Any) -> Iterator[Any]:
    """Yield token ids (1, length) of the prompts of the run's training set, without responses."""
    import torch

    from reproduction.training import build_data

    for row in build_data(asked.data, tokenizer, root=asked.data_root, revisions=asked.revisions)[0].rows:
        length = next(index for index, label in enumerate(row["labels"]) if label >= 0)  # only responses have labels
        yield torch.tensor([row["input_ids"][:length]])


def _summary(layers: list[Any]) -> dict[str, Any]:
    """Return the columns of one type of module from its layers' `PivotStatistics`."""
    first = layers[0]
    sizes = [size for layer in layers for size in layer.cluster_sizes]

    def over_layers(name: str, summarize: Callable[[list[float]], float] = statistics.fmean) -> float | None:
        values = [value for layer in layers if (value := getattr(layer, name)) is not None]
        return summarize(values) if values else None

    overlaps = {name: statistics.fmean(layer.overlaps[name] for layer in layers) for name in first.overlaps}
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
        **{f"overlap_{name}": value for name, value in overlaps.items()},
        "mixture_effective_rank": over_layers("mixture_rank"),
        "update_effective_rank": over_layers("update_effective_rank"),
        "update_rank": over_layers("update_rank", max),
        "rank_bound": first.r,
        "rank_bound_paper": first.k * first.r,
        "router_entropy": over_layers("router_entropy"),
    }


def replace_rows(path: Path, rows: list[Mapping[str, Any]], *, key: Sequence[str] = KEY) -> None:
    """Replace the rows of a CSV that have the same values of ``key``, and keep the others.

    Raises `ConfigError` if the file has other columns.
    """
    new, columns = [{name: spelled(value, 6) for name, value in row.items()} for row in rows], list(rows[0])
    old = read_csv(path)
    if old and list(old[0]) != columns:
        raise ConfigError(f"{path} has other columns than this version writes: delete it and run this again")

    def key_of(row: Mapping[str, str]) -> list[str]:
        return [row[name] for name in key]

    replaced = [key_of(row) for row in new]
    write_csv(path, columns, sorted([*(row for row in old if key_of(row) not in replaced), *new], key=key_of))


def spelled(value: Any, digits: int = 3) -> str:
    """Format a value with this many significant digits; None is empty."""
    return "" if value is None else f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def terminal_table(title: str, headings: Iterable[str]) -> Table:
    """Return an empty terminal table whose first column is a name and the others numbers."""
    table = Table(title=Text(title), box=rich.box.SIMPLE_HEAD, title_justify="left", padding=(0, 0, 0, 1))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table
