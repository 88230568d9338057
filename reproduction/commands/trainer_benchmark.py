"""scripts/benchmark.py suite=trainer: compares the trainer with a plain loop and writes trainer.csv."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.resolve_paths import embedded_tokenizer
from reproduction.commands.benchmark import chosen, device_folder, method_at, the_device
from reproduction.records import environment
from reproduction.report.training import write_trainer
from reproduction.training.spec import ModelSpec, TrainSpec

if TYPE_CHECKING:
    from reproduction.benchmark.training import TrainerScenario


def trainer_scenarios(config: DictConfig) -> "list[TrainerScenario]":
    """Return the scenarios of the suite."""
    from reproduction.benchmark.training import TrainerScenario

    values = plain(config)
    suite, scenarios = values["suite"], []
    for name, written in chosen(values["scenarios"], suite["trainer"], what="scenarios").items():
        own, where = dict(written), f"suite.trainer.{name}"
        scale = own.pop("scale")
        methods = [method_at(each, scale, suite["dropout"]) for each in values["methods"] or own["methods"]]
        model = _cut(own["model"], own.pop("layers"), where=f"{where}.model")
        train = parse_dataclass(TrainSpec, {**suite["train"], "seed": values["seed"]}, where="suite.train")
        made = {"name": name, "model": model, "methods": tuple(methods), "train": train}
        scenarios.append(parse_dataclass(TrainerScenario, own | made, where=where))
    if not scenarios:
        raise ConfigError("scenarios=[] leaves nothing to measure: name one of the suite, or leave it out for all")
    return scenarios


def _cut(model: str | dict[str, Any], layers: int, *, where: str) -> ModelSpec:
    """Return a random-weight model with this many decoder layers, from its config or its name in configs/model."""
    own = plain(compose("train", [f"model={model}", "scale=paper"]).model) if isinstance(model, str) else dict(model)
    label = own["label"] if isinstance(model, dict) else f"{own['label']}, {layers} layers"
    shape = {**own["shape"], "num_hidden_layers": layers}
    return parse_dataclass(ModelSpec, own | {"init": "random", "label": label, "shape": shape}, where=where)


def measure_trainer(config: DictConfig, *, command: str) -> None:
    """Run the suite's scenarios, print each row, and write trainer.csv and trainer.md."""
    import torch

    torch.set_num_threads(config.threads)
    device, rows = config.device or the_device(), []
    folder = device_folder(device, config.results_dir)
    for row in _rows(trainer_scenarios(config), device):
        rows.append(dataclasses.asdict(row))
        print(
            f"{row.model}, {row.method}, {row.loop} ({row.passes}): {1000 * row.step_seconds_median:.1f} ms a step, "
            f"{row.tokens_per_second:,.0f} tokens/s, x{row.ratio:.2f}, set up in {row.setup_seconds:.1f} s",
            flush=True,
        )
        written = write_trainer(rows, folder, environment() | {"command": command, "device": folder.name})
    print(f"written: {', '.join(map(str, written))}")


def _rows(scenarios: "list[TrainerScenario]", device: str) -> Iterator[Any]:
    from reproduction.benchmark.training import run_scenario
    from reproduction.training import build_tokenizer

    tokenizer = build_tokenizer(
        ModelSpec(name="embedded", label="", path_or_id=str(embedded_tokenizer()), init="pretrained")
    )
    return itertools.chain.from_iterable(run_scenario(each, tokenizer, device) for each in scenarios)
