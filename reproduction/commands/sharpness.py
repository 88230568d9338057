"""What explains the methods' best learning rates, measured where their trainings start: a row for each kind of module.

a_row_norm          mean norm of the rows of A, which a module's input is multiplied by first; empty where there is none
first_update        ‖Δ(W x)‖ / ‖W x‖ after AdamW's first step at `rate`
largest_eigenvalue  of the Hessian of the loss over the trained parameters, in the row "all" alone
setting             a digest of the data's spec, the method's arguments and the modules that are looked at

Both means are over the modules of a kind, and over all of them in the row "all". The norms by which DoRA divides are
constants to the Hessian, as they are to PEFT's gradients.
"""

import csv
import dataclasses
import gc
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import rich.box
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reproduction.cells.compose import compose, group_files, plain
from reproduction.cells.config_schema import ConfigError, typed
from reproduction.cells.from_config import method_spec
from reproduction.cells.override import override
from reproduction.cells.resolve_paths import locate_data, locate_model, locate_revisions
from reproduction.commands.counts import count_on
from reproduction.commands.pivots import replace_rows, spelt
from reproduction.records import digest
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec

KEY = ("base", "checksum", "method", "seed", "rows", "rate", "setting")
"""The columns that tell one measurement's rows in sharpness.csv from another's: they are replaced together."""

ALL = "all"
"""Stands in the column of kinds of module for all of them."""

LEGEND = (
    "eigenvalue: the largest of the Hessian of the loss over the trained parameters, where training starts; ? where it "
    "is not found to the tolerance. First step: the change of a module's output over the output, after one step of "
    "AdamW. Means over the layers."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What scripts/sharpness.py measures: some methods on one base and some rows, before anything is trained.

    `kinds` are the last parts of the names of the modules that are looked at ("q_proj"); the rest is as
    configs/sharpness.yaml has it.
    """

    scale: str
    model: ModelSpec
    methods: tuple[MethodSpec, ...]
    kinds: tuple[str, ...]
    data: DataSpec
    data_root: Path | None
    revisions: Mapping[str, str]
    seed: int
    rows: int
    micro_batch_size: int
    rate: float
    iterations: int
    tolerance: float
    threads: int
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> "Start":
        """From a composed configs/sharpness.yaml.

        Raises `ConfigError` for a value out of range, a method that trains nothing, or a base that is not there.
        """
        for name, least in {"rows": 1, "micro_batch_size": 1, "iterations": 1}.items():
            if config[name] < least:
                raise ConfigError(f"{name}={config[name]}: give {least} or more")
        for name in ("rate", "tolerance"):
            if not config[name] > 0:
                raise ConfigError(f"{name}={config[name]}: give a number above 0")
        methods = tuple(_method(config, name) for name in _method_names(config))
        if untuned := [method.name for method in methods if method.kind == "none"]:
            raise ConfigError(f"methods has {untuned[0]}, which trains nothing: leave it out")
        # Other attention has no second derivative, and half precision hides a first step as small as these.
        model = locate_model(plain(config.model)) | {"dtype": "float32", "attention": "eager"}
        data = plain(config.data)
        root = locate_data(data.pop("root"), scale=config.scale, results_dir=config.results_dir)
        return cls(
            scale=config.scale,
            model=typed(ModelSpec, model, where="model"),
            methods=methods,
            kinds=tuple(config.train.target_modules),
            data=typed(DataSpec, data | {"limit": config.rows, "packing": False}, where="data"),
            data_root=root,
            revisions=locate_revisions(config.revisions),
            out=Path(config.results_dir) / config.scale / "sharpness.csv",
            **{
                name: config[name]
                for name in ("seed", "rows", "micro_batch_size", "rate", "iterations", "tolerance", "threads")
            },
        )

    def setting(self, method: MethodSpec) -> str:
        """What tells apart two measurements of one method's name: its arguments, the data's spec, the modules.

        A copy of the data elsewhere shares it, since `Start.data` has no digest of the content.
        """
        parts = {"data": dataclasses.asdict(self.data), "method": dataclasses.asdict(method)}
        return digest(parts | {"kinds": self.kinds})


def _method_names(config: DictConfig) -> list[str]:
    names = [config.methods] if isinstance(config.methods, str) else list(config.methods or ())
    known = sorted({path.stem for path in group_files("method")})
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"methods={unknown[0]} is no method; there are {', '.join(known)}")
    if not names:
        raise ConfigError(f"methods names none; there are {', '.join(known)}")
    return names


def _method(config: DictConfig, name: str) -> MethodSpec:
    """A method of configs/method with this config's seed, dropout and modules."""
    values = OmegaConf.to_container(config)
    values["method"] = OmegaConf.to_container(compose("train", [override("method", name)]).method)
    return method_spec(plain(OmegaConf.create(values).method))


def report_sharpness(asked: Start, console: Console | None = None) -> None:
    """Measure the methods that sharpness.csv does not have yet, one after another, and print all of those asked for.

    Raises ValueError where there are fewer rows than asked for, or no module has one of the names.
    """
    import torch  # seconds to import

    from reproduction.training import base_identity

    console = console or Console()
    torch.set_num_threads(asked.threads)
    identity = base_identity(asked.model)
    head = {"base": asked.model.name, "checksum": identity[:12] if asked.model.checksum else identity}
    shown: list[Mapping[str, str]] = []
    for method in asked.methods:
        counted = count_on(dataclasses.replace(asked.model, init="random"), method)
        own = head | {"method": method.name, "label": method.label, "seed": asked.seed}
        own |= {"trained": counted.parameters_trainable, "rows": asked.rows, "rate": asked.rate}
        own["setting"] = asked.setting(method)
        found = _recorded(asked.out, own)
        if not found or (found[-1]["converged"] == "no" and int(found[-1]["iterations"]) < asked.iterations):
            began = time.monotonic()
            replace_rows(asked.out, measure(asked, method, own), key=KEY)
            console.print(f"{method.label}: {time.monotonic() - began:.0f} s", markup=False, highlight=False)
            gc.collect()
            found = _recorded(asked.out, own)
        shown += found
    for table in _tables(shown, f"Where training starts: {asked.model.label}, {asked.rows} rows"):
        console.print(table)
    console.print(LEGEND, markup=False)
    console.print(f"written: {asked.out}", soft_wrap=True, markup=False, highlight=False)


def measure(asked: Start, method: MethodSpec, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one method: kinds of module in the model's order, "all" last; `head` are columns to repeat."""
    import torch

    from reproduction.training import build_adapted, build_base, build_data, sharpness
    from reproduction.training.batches import Collator

    base, tokenizer = build_base(asked.model)
    tokenizer.padding_side = "right"
    tokenized = build_data(asked.data, tokenizer, root=asked.data_root, revisions=asked.revisions)[0]
    if len(tokenized) < asked.rows:
        raise ConfigError(f"rows={asked.rows}: the training set has {len(tokenized)}")
    model = build_adapted(base, method, asked.seed)
    sharpness.take_plain_passes(model)
    modules = {name: each for name, each in model.named_modules() if name.rpartition(".")[2] in asked.kinds}
    if not modules:
        raise ConfigError(f"train.target_modules={list(asked.kinds)} names no module of {asked.model.name}")
    rows = sorted(tokenized.rows, key=lambda row: -len(row["input_ids"]))  # those of a pass are of like length
    cuts, collate = range(0, len(rows), asked.micro_batch_size), Collator(tokenizer)
    batches = [collate(rows[cut : cut + asked.micro_batch_size]).to(base.device) for cut in cuts]

    parameters = sharpness.trained(model)
    start = torch.randn(sum(map(torch.numel, parameters)), generator=torch.Generator().manual_seed(asked.seed))
    eigenvalue = sharpness.largest_eigenvalue(
        sharpness.hessian_product(parameters, lambda: sharpness.losses(model, batches)),
        start.to(base.device),
        iterations=asked.iterations,
        tolerance=asked.tolerance,
    )
    norms = {name: float(A.norm(dim=1).mean()) for name, each in modules.items() if (A := _first(each)) is not None}
    moved = sharpness.first_update(model, batches, modules, rate=asked.rate)  # last: the model has then taken it

    def row(kind: str, names: Iterable[str], found: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **{name: head[name] for name in ("base", "checksum", "method", "label", "seed", "trained", "rows")},
            "tokens": sharpness.count_response_tokens(batches),
            "rate": head["rate"],
            "setting": head["setting"],
            "module": kind,
            "a_row_norm": statistics.fmean(norms[name] for name in names) if norms else None,
            "first_update": statistics.fmean(moved[name] for name in names),
            **found,
        }

    kinds: dict[str, list[str]] = {}
    for name in modules:
        kinds.setdefault(name.rpartition(".")[2], []).append(name)
    found = dataclasses.asdict(eigenvalue)
    found = {"largest_eigenvalue": found.pop("value"), **found, "converged": "yes" if eigenvalue.converged else "no"}
    rows = [row(kind, names, dict.fromkeys(found)) for kind, names in kinds.items()]
    return [*rows, row(ALL, list(modules), found)]


def _first(layer: Any) -> Any:
    """A (rows, in), the matrix of an adapted module that its input is multiplied by first, or None."""
    if hasattr(layer, "frozen_rows"):  # ID-LoRA's, which are rows of W
        return layer.frozen_rows("default").detach()
    return next((each.detach() for name, each in layer.named_parameters() if "_A.default" in name), None)


def _recorded(path: Path, own: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of sharpness.csv with these columns."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row.get(name) == spelt(own[name], 6) for name in own)]


def _tables(rows: list[Mapping[str, str]], title: str) -> Iterable[Table]:
    """The rows as three tables: one line a method, and of the last two a column for each kind of module."""
    whole = [row for row in rows if row["module"] == ALL]
    kinds = list(dict.fromkeys(row["module"] for row in rows))
    table = _table(title, ["trained", "eigenvalue", "products"])
    for row in whole:
        value = _short(row["largest_eigenvalue"]) + ("" if row["converged"] == "yes" else "?")
        table.add_row(Text(row["label"]), row["trained"], value, row["iterations"])
    yield table
    for title, column, unit in (
        ("Mean norm of A's rows", "a_row_norm", 1.0),
        (f"First step at rate {whole[0]['rate']}, in 1e-4 of the output", "first_update", 1e-4),
    ):
        table = _table(title, [kind.removesuffix("_proj") for kind in kinds])
        for method in whole:
            own = {row["module"]: row[column] for row in rows if row["method"] == method["method"]}
            table.add_row(Text(method["label"]), *(_short(own[kind], unit) for kind in kinds))
        yield table


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=Text(title), box=rich.box.SIMPLE_HEAD, title_justify="left", padding=(0, 0, 0, 1))
    table.add_column("method")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _short(number: str, unit: float = 1.0) -> str:
    return f"{float(number) / unit:.3g}" if number else "—"
