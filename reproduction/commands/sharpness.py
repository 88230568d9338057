"""Quantities at the start of training that explain the methods' best learning rates: a row for each kind of module.

a_row_norm          mean norm of the rows of A, the matrix that a module's input is multiplied by first; empty if none
first_update        ‖Δ(W x)‖ / ‖W x‖ after AdamW's first step at `rate`
largest_eigenvalue  of the Hessian of the loss over the trained parameters; only in the row "all"
setting             a digest of the data's spec, the method's arguments and the measured modules

The means are over the modules of a kind, and over all of them in the row "all". The Hessian treats the norms by which
DoRA divides as constants, as PEFT's gradients do.
"""

import dataclasses
import gc
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from reproduction.cells.compose import compose, group_files, plain
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.from_config import method_spec
from reproduction.cells.nearest import did_you_mean
from reproduction.cells.override import override
from reproduction.cells.resolve_paths import locate_data, locate_model, locate_revisions
from reproduction.commands.counts import count_on
from reproduction.commands.pivots import replace_rows, spelled, terminal_table
from reproduction.records import digest
from reproduction.report.documents import read_csv
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec

KEY = ("base", "checksum", "method", "seed", "rows", "rate", "setting")
"""Columns of sharpness.csv that identify a measurement; its rows are replaced together."""

ALL = "all"
"""Value of the module column in the row over all kinds of module."""

LEGEND = (
    "eigenvalue: the largest of the Hessian of the loss over the trained parameters, where training starts; ? where it "
    "is not found to the tolerance. First step: the change of a module's output over the output, after one step of "
    "AdamW. Means over the layers."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Methods on one base and some rows before training; the other fields are those of configs/sharpness.yaml.

    `kinds` are the last name parts of the measured modules ("q_proj").
    """

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
        """Build a `Start` from a composed configs/sharpness.yaml."""
        for name in ("rows", "micro_batch_size", "iterations"):
            if config[name] < 1:
                raise ConfigError(f"{name}={config[name]}: give 1 or more")
        for name in ("rate", "tolerance"):
            if not config[name] > 0:
                raise ConfigError(f"{name}={config[name]}: give a number above 0")
        # Other attention kernels have no second derivative, and half precision rounds off such small first steps.
        model = locate_model(plain(config.model)) | {"dtype": "float32", "attention": "eager"}
        data = plain(config.data)
        root = locate_data(data.pop("root"), scale=config.scale, results_dir=config.results_dir)
        same = ("seed", "rows", "micro_batch_size", "rate", "iterations", "tolerance", "threads")
        return cls(
            model=parse_dataclass(ModelSpec, model, where="model"),
            methods=_methods(config),
            kinds=tuple(config.train.target_modules),
            data=parse_dataclass(DataSpec, data | {"limit": config.rows, "packing": False}, where="data"),
            data_root=root,
            revisions=locate_revisions(config.revisions),
            out=Path(config.results_dir) / config.scale / "sharpness.csv",
            **{name: config[name] for name in same},
        )

    def setting(self, method: MethodSpec) -> str:
        """Return a digest of the method's arguments, the data's spec (not its path) and the modules."""
        parts = {"data": dataclasses.asdict(self.data), "method": dataclasses.asdict(method)}
        return digest(parts | {"kinds": self.kinds})


def _methods(config: DictConfig) -> tuple[MethodSpec, ...]:
    """Return the named methods of configs/method with this config's seed, dropout and modules."""
    names = [config.methods] if isinstance(config.methods, str) else list(config.methods or ())
    known = sorted({path.stem for path in group_files("method")})
    if unknown := [name for name in names if name not in known] or ([] if names else ["[]"]):
        raise ConfigError(f"methods={unknown[0]} is no method; {did_you_mean(unknown[0], known)}")
    found, values = [], OmegaConf.to_container(config)
    for name in names:
        values["method"] = OmegaConf.to_container(compose("train", [override("method", name)]).method)
        found.append(method_spec(plain(OmegaConf.create(values).method)))
        if found[-1].kind == "none":
            raise ConfigError(f"methods has {name}, which trains nothing: leave it out")
    return tuple(found)


def report_sharpness(asked: Start, console: Console | None = None) -> None:
    """Measure the requested methods that sharpness.csv lacks, one after another, and print all requested ones."""
    import torch  # seconds to import

    from reproduction.training import base_identity

    console = console or Console()
    torch.set_num_threads(asked.threads)
    identity = base_identity(asked.model)
    shown: list[Mapping[str, str]] = []
    for method in asked.methods:
        own = {
            "base": asked.model.name,
            "checksum": identity[:12] if asked.model.checksum else identity,
            "method": method.name,
            "label": method.label,
            "seed": asked.seed,
            "trained": count_on(dataclasses.replace(asked.model, init="random"), method).parameters_trainable,
            "rows": asked.rows,
            "rate": asked.rate,
            "setting": asked.setting(method),
        }
        found = _recorded(asked.out, own)
        if not found or (found[-1]["converged"] == "no" and int(found[-1]["iterations"]) < asked.iterations):
            console.print(f"measuring {method.label}", markup=False, highlight=False)
            replace_rows(asked.out, measure(asked, method, own), key=KEY)
            gc.collect()
            found = _recorded(asked.out, own)
        shown += found
    _show(shown, f"Where training starts: {asked.model.label}, {asked.rows} rows", console)
    console.print(f"written: {asked.out}", soft_wrap=True, markup=False, highlight=False)


def measure(asked: Start, method: MethodSpec, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure one method: a row per kind of module in the model's order, "all" last; `head` is part of every row."""
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
    rows = sorted(tokenized.rows, key=lambda row: -len(row["input_ids"]))  # rows of similar length share a pass
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
    norms = {name: float(A.norm(dim=1).mean()) for name, each in modules.items() if (A := _matrix_a(each)) is not None}
    moved = sharpness.first_update(model, batches, modules, rate=asked.rate)  # last: it changes the model
    kinds: dict[str, list[str]] = {}
    for name in modules:
        kinds.setdefault(name.rpartition(".")[2], []).append(name)
    found = {
        "largest_eigenvalue": eigenvalue.value,
        **{key: value for key, value in dataclasses.asdict(eigenvalue).items() if key != "value"},
        "converged": "yes" if eigenvalue.converged else "no",
    }
    setting, tokens = head["setting"], sharpness.count_response_tokens(batches)
    columns = {key: value for key, value in head.items() if key not in ("rate", "setting")}
    return [
        {
            **columns,
            "tokens": tokens,
            "rate": head["rate"],
            "setting": setting,
            "module": kind,
            "a_row_norm": statistics.fmean(norms[name] for name in names) if norms else None,
            "first_update": statistics.fmean(moved[name] for name in names),
            **(found if kind == ALL else dict.fromkeys(found)),
        }
        for kind, names in (kinds | {ALL: list(modules)}).items()
    ]


def _matrix_a(layer: Any) -> Any:
    """Return A (rows, in), the matrix that an adapted module's input is multiplied by first, or None."""
    if hasattr(layer, "frozen_rows"):  # ID-LoRA's A is rows of W
        return layer.frozen_rows("default").detach()
    return next((each.detach() for name, each in layer.named_parameters() if "_A.default" in name), None)


def _recorded(path: Path, own: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the rows of sharpness.csv with these values."""
    return [row for row in read_csv(path) if all(row.get(name) == spelled(value, 6) for name, value in own.items())]


def _show(rows: list[Mapping[str, str]], title: str, console: Console) -> None:
    """Print three tables with a line per method; the last two have a column for each kind of module."""
    whole = [row for row in rows if row["module"] == ALL]
    table = terminal_table(title, ["method", "trained", "eigenvalue", "products"])
    for row in whole:
        value = _short(row["largest_eigenvalue"]) + ("" if row["converged"] == "yes" else "?")
        table.add_row(Text(row["label"]), row["trained"], value, row["iterations"])
    console.print(table)
    kinds = list(dict.fromkeys(row["module"] for row in rows))
    for title, column, unit in (
        ("Mean norm of A's rows", "a_row_norm", 1.0),
        (f"First step at rate {whole[0]['rate']}, in 1e-4 of the output", "first_update", 1e-4),
    ):
        table = terminal_table(title, ["method", *(kind.removesuffix("_proj") for kind in kinds)])
        for method in whole:
            own = {row["module"]: row[column] for row in rows if row["method"] == method["method"]}
            table.add_row(Text(method["label"]), *(_short(own[kind], unit) for kind in kinds))
        console.print(table)
    console.print(LEGEND, markup=False)


def _short(number: str, unit: float = 1.0) -> str:
    return f"{float(number) / unit:.3g}" if number else "—"
