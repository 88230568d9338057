"""scripts/benchmark.py: builds a checked `Plan` from a composed configs/benchmark.yaml, runs it and reports."""

import functools
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from reproduction.benchmark.spec import Group, Limits, Plan, Scenario, Variant
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.from_config import method_spec
from reproduction.cells.override import override
from reproduction.cells.resolve_paths import locate_model
from reproduction.cli import NotComplete
from reproduction.report.costs import write_costs
from reproduction.training.spec import MethodSpec, ModelSpec

EVERYWHERE = ("batch", "length", "layers", "repeats")
"""Root keys that, if given, override those of every scenario."""

FROM_ELSEWHERE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Keys of a config.json that do not describe a model's shape."""


def plan_from_config(config: DictConfig) -> Plan:
    """Return the plan of scripts/benchmark.py.

    Raises ValueError for a name that the suite does not have, an ill-typed value, or a value that a spec refuses.
    """
    values = plain(config)
    suite, scale = values["suite"], values["scale"]
    known = suite["variants"]
    wanted = chosen(values["methods"], dict.fromkeys(variant["method"] for variant in known.values()), what="methods")
    everywhere = {key: values[key] for key in EVERYWHERE if values[key] is not None}
    measured: list[tuple[Scenario, tuple[Variant, ...]]] = []
    for name, written in chosen(values["scenarios"], suite["scenarios"], what="scenarios").items():
        where, own = f"suite.scenarios.{name}", {key: value for key, value in written.items() if key != "variants"}
        scenario = parse_dataclass(Scenario, own | {"name": name} | everywhere, where=where)
        if unknown := [each for each in written["variants"] if each not in known]:
            raise ConfigError(f"{where} has {unknown[0]}, which is none of suite.variants: {', '.join(known)}")
        names = {each: known[each] for each in written["variants"] if known[each]["method"] in wanted}
        variants = tuple(
            _variant(each, variant, scenario, scale=scale)
            for each, variant in [(values["reference"], {"method": values["reference"]}), *names.items()]
        )
        measured.append((scenario, variants))
    together = itertools.groupby(measured, key=lambda each: (each[0].layers, each[0].dropout, each[1]))
    return Plan(
        model=parse_dataclass(ModelSpec, _shaped(values["model"]), where="model"),
        groups=tuple(
            Group(scenarios=tuple(scenario for scenario, _ in of_group), variants=variants)
            for (_, _, variants), of_group in together
        ),
        limits=parse_dataclass(Limits, suite["limits"], where="suite.limits"),
        device=values["device"] or the_device(),
        allow_busy=values["allow_busy"],
        seed=values["seed"],
    )


def chosen(names: list[str] | None, known: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """Return the entries of ``known`` with these names; None is all of them."""
    if unknown := [name for name in names or () if name not in known]:
        raise ConfigError(f"{what}={unknown[0]} is none of the suite's, which are {', '.join(known)}")
    return {name: value for name, value in known.items() if names is None or name in names}


def _variant(name: str, written: Mapping[str, Any], scenario: Scenario, *, scale: str) -> Variant:
    method = method_at(written["method"], scale, scenario.dropout)
    return parse_dataclass(Variant, {**written, "name": name, "method": method}, where=f"suite.variants.{name}")


@functools.cache
def method_at(name: str, scale: str, dropout: float) -> MethodSpec:
    """Return a method of configs/method at a scale and a dropout."""
    asked = [override("method", name), override("scale", scale), override("train.dropout", dropout)]
    return method_spec(plain(compose("train", asked).method))


def _shaped(model: dict[str, Any]) -> dict[str, Any]:
    """Locate the model; random weights of a folder take their shape, except the layers, from its config.json."""
    found = locate_model(model)
    config = Path(found["path_or_id"]) / "config.json"
    if found["init"] == "random" and found["shape"] is None and config.is_file():
        sizes = json.loads(config.read_text(encoding="utf-8"))
        found["shape"] = {key: value for key, value in sizes.items() if key not in FROM_ELSEWHERE}
    return found


def the_device() -> str:
    """Return the default device: cuda if available, else cpu."""
    import torch  # seconds to import

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_folder(device: str, results_dir: Path | str) -> Path:
    """Return results_dir/<device>: cpu, or the GPU's product name up to its number (h200, geforce-rtx-4090)."""
    import torch

    from reproduction.training.telemetry import device_name

    name = re.sub(r"[^a-z0-9]+", "-", device_name(torch.device(device)).lower()).strip("-").removeprefix("nvidia-")
    return Path(results_dir) / (re.match(r"[^0-9]*[^-]*", name)[0] if re.search(r"\d", name) else name)


def measure_plan(plan: Plan, results_dir: Path | str, *, command: str, threads: int) -> None:
    """Run a plan on this many CPU threads, print each row, and write benchmark.csv and benchmark.md.

    Raises `NotComplete` if the machine was busy or a variant failed.
    """
    import torch

    from reproduction.benchmark.idle_check import Busy
    from reproduction.benchmark.run import run_benchmark

    torch.set_num_threads(threads)
    folder = device_folder(plan.device, results_dir)
    try:
        problems = run_benchmark(plan, folder, command=command, log=lambda line: print(line, flush=True))
    except Busy as error:
        raise NotComplete(str(error)) from error
    print(f"written: {folder / 'benchmark.csv'}, {write_costs(folder / 'benchmark.csv')}")
    if problems:
        raise NotComplete(f"{len(problems)} of the rows do not count: {'; '.join(problems)}")
