"""Conversion of a composed config to a checked `Cell` or `EvalJob`; the code below sees no config."""

import copy
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from reproduction.cells.cell import Cell, unseen
from reproduction.cells.compose import compose, group_files, plain
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.evaluation import EvalJob, finished, load_model, model_identity
from reproduction.cells.override import override
from reproduction.cells.protocols import protocols
from reproduction.cells.resolve_paths import (
    data_digest,
    folder_digest,
    locate_data,
    locate_model,
    locate_revisions,
    relocate_model,
)
from reproduction.cells.tuned_rates import TUNED, trials_plan, tuned_rate
from reproduction.data.templates import ALPACA, Template, load_template
from reproduction.evals.sandbox import Permissions
from reproduction.paths import CONFIGS
from reproduction.records import Run, digest
from reproduction.training.launching import Launch, resolve, visible_gpus
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec, TrackingSpec, TrainSpec, WandbSpec

logger = logging.getLogger(__name__)


def compose_cell(
    experiment: str, method: str, *, scale: str, seed: int, overrides: Sequence[str] = (), gpus: int | None = None
) -> Cell:
    """Return the `Cell` that ``scripts/train.py experiment=… method=… scale=… seed=…`` would run.

    ``gpus`` is the number of GPUs of the launch; None counts this machine's with PyTorch. Pass 0 if the cell's records
    are only read.

    Raises `ConfigError` as `cell_from_config` does, and for overrides that set a seed other than through `seed`.
    """
    if twice := [override for override in overrides if override.lstrip("+").startswith("seed=")]:
        raise ConfigError(f"{twice[0]} among the overrides would be lost: give seeds=[…]")
    asked = (override("experiment", experiment), override("method", method), override("scale", scale), *overrides)
    values, written = _composed(asked)

    def at(seed: int) -> dict[str, Any]:
        return _with_seed(values, written, seed) | {"seed": seed}

    return _cell(at(seed), at, gpus)


@functools.lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the training config, resolved and unresolved. Cached: it takes 0.25 s and serves all seeds."""
    config = compose("train", overrides)
    return plain(config), OmegaConf.to_container(config)


def _with_seed(value: Any, written: Any, seed: int) -> Any:
    """Copy a resolved config, replacing every value written as ``${seed}`` by this seed.

    Raises `ConfigError` if ``${seed}`` is part of a longer text, a list or a resolver, where it would stay 0.
    """
    if isinstance(value, dict) and isinstance(written, dict):
        return {key: _with_seed(inner, written[key], seed) for key, inner in value.items()}
    if written != "${seed}" and "${seed}" in str(written) and "${seed}" not in str(value):
        raise ConfigError(f"{written!r} holds the seed: write it as a value of its own, ${{seed}}")
    return seed if written == "${seed}" else copy.deepcopy(value)


def cell_from_config(config: DictConfig) -> Cell:
    """Return the checked `Cell` of a composed training config.

    Raises `ConfigError` for an unknown key, an ill-typed value, a missing model or data set, or a tuned learning rate
    that was never searched.
    """
    return _cell(plain(config), lambda seed: plain(OmegaConf.merge(config, {"seed": seed})))


def _cell(values: Mapping[str, Any], at: Callable[[int], Mapping[str, Any]], gpus: int | None = None) -> Cell:
    """Return the cell of resolved values, with the tuned learning rate of the same cell at the trials' seed if
    requested. ``at(seed)`` returns the values at another seed.
    """
    cell = _as_written(values, gpus)
    if values["train"]["learning_rate"] != TUNED:
        return cell
    seed = trials_plan(values["scale"]).seed
    tried = cell if values["seed"] == seed else _as_written(at(seed), gpus)
    rate = tuned_rate(tried.as_tried.config)
    return dataclasses.replace(cell, train=dataclasses.replace(cell.train, learning_rate=rate))


def _as_written(values: Mapping[str, Any], gpus: int | None) -> Cell:
    """Return the cell of resolved values; a tuned learning rate stays open."""
    method = method_spec(values["method"])
    launch, deepspeed = _launch(values["launch"], full=method.kind == "full", gpus=gpus)
    train = values["train"] | {"seed": values["seed"], "deepspeed": deepspeed}
    if train["learning_rate"] == TUNED:
        train["learning_rate"] = None
    for read_by_the_methods in ("dropout", "target_modules"):
        train.pop(read_by_the_methods, None)
    own = dict(values["data"])
    data_root = locate_data(own.pop("root"), scale=values["scale"], results_dir=values["results_dir"])
    data, how = parse_dataclass(DataSpec, own, where="data"), _how(values, values.get("eval", {}), data_root)
    if method.kind != "none":
        how["protocols"] = unseen(data, how["protocols"], values["protocol"])
    digests = (data_digest(source, data_root, revisions=how["revisions"]) for source in data.sources)
    template = template_of(values)
    own_template = None if template.source is None else {"label": template.name, "source": template.source}
    data = dataclasses.replace(data, digest="+".join(digests), template=own_template)
    model = parse_dataclass(ModelSpec, locate_model(values["model"]), where="model")
    if data.packing and (model.attention or "").startswith("flash"):
        raise ConfigError(
            f"data.packing=true with model.attention={model.attention}: examples of a row would see each other where a "
            "pass has several rows; take model.attention=sdpa, or data.packing=false"
        )
    return Cell(
        experiment=values["experiment"],
        scale=values["scale"],
        model=model,
        method=method,
        data=data,
        train=parse_dataclass(TrainSpec, train, where="train"),
        launch=launch,
        tracking=TrackingSpec(
            wandb=parse_dataclass(WandbSpec, values["wandb"], where="wandb"), tensorboard=values["tensorboard"]
        ),
        results_dir=Path(values["results_dir"]),
        trial_steps=values["trial_steps"],
        **how,
    )


def template_of(values: Mapping[str, Any]) -> Template:
    """Return the template of a composed ``template`` group: the default, or the file at its path with an optional name.

    Raises `ConfigError` for a file that is no template, or a name without a file.
    """
    name, path = (values["template"].get(key) for key in ("name", "path"))
    named = {} if name in (None, ALPACA.name) else {"name": str(name)}
    if path is None and named:
        raise ConfigError(f"template.name={name} has no file: give template.path=<file>, a Jinja template")
    try:
        return ALPACA if path is None else dataclasses.replace(load_template(str(path)), **named)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _launch(values: Mapping[str, Any], *, full: bool, gpus: int | None) -> tuple[Launch, Mapping[str, Any] | None]:
    """Return how this machine launches a cell, and the DeepSpeed config if it uses one.

    ``launch=auto`` becomes one of the other files of configs/launch, with that file's DeepSpeed config.
    """
    try:
        launch = resolve(
            values["mode"],
            num_processes=values["num_processes"],
            full=full,
            gpus=visible_gpus() if gpus is None else gpus,
            memory_gb=values["memory_gb"],
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if launch.mode == values["mode"]:
        return launch, values["deepspeed"]
    return launch, yaml.safe_load((CONFIGS / "launch" / f"{launch.mode}.yaml").read_text(encoding="utf-8")).get(
        "deepspeed"
    )


def method_spec(values: Mapping[str, Any]) -> MethodSpec:
    """Return the method of a composed ``method`` group. Raises `ConfigError` for an unknown key or ill-typed value."""
    own = {key: value for key, value in values.items() if key != "paper_learning_rate"}  # hparams/paper.yaml reads it
    return parse_dataclass(MethodSpec, own, where="method")


def eval_job_from_config(config: DictConfig) -> EvalJob:
    """Return the job of scripts/evaluate.py: a finished run, or a base model with or without an adapter.

    A run's records name its training; its evaluations are its experiment's unless ``eval`` names others.

    Raises `ConfigError` for a folder that is no finished run, a run and an adapter at once, or no benchmark.
    """
    if config.run is None:
        return _model_job(config)
    if config.adapter is not None:
        raise ConfigError(f"give run={config.run} or adapter={config.adapter}, not both: a run has its own adapter")
    run = Run(Path(config.run))
    trained = not run.done or run.config["method"]["kind"] != "none"  # all templates share an untuned base's run
    if trained and config.template.path is not None:
        raise ConfigError(f"give run={config.run} or template.path, not both: a run has its own template")
    if not run.done:
        raise ConfigError(f"run={config.run} is no finished run (its state is {run.state}): train it first")
    recorded = run.config
    config = OmegaConf.merge(config, OmegaConf.load(CONFIGS / "scale" / f"{recorded['scale']}.yaml"))
    values = plain(config)
    data_root = locate_data(values["data_root"], scale=recorded["scale"], results_dir=values["results_dir"])
    evals = values.get("eval") or plain(compose("train", _overrides(recorded)).eval)
    data, how = _data_of(recorded), _how(values, evals, data_root)
    if trained:
        how["protocols"] = unseen(data, how["protocols"], values["protocol"])
    return finished(
        run.folder,
        parse_dataclass(ModelSpec, relocate_model(recorded["model"]), where="model"),
        parse_dataclass(MethodSpec, recorded["method"], where="method"),
        template=data.prompt_template if trained else template_of(values),
        **how,
    )


def _data_of(recorded: Mapping[str, Any]) -> DataSpec:
    own = {key: value for key, value in recorded["data"].items() if key != "template_version"}
    return parse_dataclass(DataSpec, own, where="data")


def _overrides(recorded: Mapping[str, Any]) -> list[str]:
    asked = {"experiment": recorded["experiment"], "scale": recorded["scale"], "method": recorded["method"]["name"]}
    return [override(key, name) for key, name in asked.items()]


def _model_job(config: DictConfig) -> EvalJob:
    values = plain(config)
    if not values.get("eval"):
        raise ConfigError(f"say what to evaluate on, eval=<one of {_benchmarks()}>, which run=<folder> knows itself")
    model = parse_dataclass(ModelSpec, locate_model(values["model"]), where="model")
    adapter = values["adapter"]
    subject = {"model": dataclasses.asdict(model), "adapter": None if adapter is None else folder_digest(Path(adapter))}
    name = f"{model.name}-{digest(subject, 8)}"
    folder = Path(values["output"] or Path(values["results_dir"]) / values["scale"] / "evaluations" / name)
    data_root = locate_data(values["data_root"], scale=values["scale"], results_dir=values["results_dir"])
    how = _how(values, values["eval"], data_root)
    if adapter is not None and any(protocol.share for protocol in how["protocols"]):
        run = Run(Path(adapter).resolve().parent)
        if run.done:
            how["protocols"] = unseen(_data_of(run.config), how["protocols"], values["protocol"])
        else:
            logger.warning("%s lies in no run: whether it was trained on the rows held out is not checked.", adapter)
    return EvalJob(
        folder=folder,
        load=functools.partial(load_model, model, adapter, allow_unknown_base=values["allow_unknown_base"]),
        identity=functools.partial(model_identity, model, adapter),
        template=template_of(values),
        dtype=model.dtype,
        **how,
    )


def _benchmarks() -> str:
    return ", ".join(sorted({path.stem for path in group_files("eval")} - {"auto"}))


@dataclasses.dataclass(frozen=True)
class _Machine:
    """Keys of a config that say how this machine evaluates."""

    threads: int
    eval_batch_size: int | None
    eval_processes: int | None
    allow_code_execution: bool
    allow_network_unconfined: bool


def _how(values: Mapping[str, Any], evals: Mapping[str, Any], data_root: Path | None) -> dict[str, Any]:
    """Return the fields of an `EvalJob` that say how this machine evaluates it."""
    if not evals:
        raise ConfigError(f"eval has no benchmark: give one or a list of {_benchmarks()}")
    chosen = protocols(evals, data_root, values["protocol"], revisions=values["revisions"])
    keys = {field.name: values[field.name] for field in dataclasses.fields(_Machine)}
    machine = parse_dataclass(_Machine, keys, where="")
    return {
        "protocols": chosen,
        "data_root": data_root,
        "revisions": locate_revisions(values["revisions"], own=[protocol.task.data for protocol in chosen]),
        "batch_size": machine.eval_batch_size,
        "threads": machine.threads,
        "processes": machine.eval_processes,
        "permissions": Permissions(
            allow_code_execution=machine.allow_code_execution,
            allow_network_unconfined=machine.allow_network_unconfined,
        ),
    }
