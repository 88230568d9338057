"""Construction of models, tokenizers and data from specs."""

import dataclasses
import hashlib
import json
import os
import re
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

import idlora  # noqa: F401  registers its methods with PEFT
from reproduction.data import (
    TokenizedSet,
    instruction_of,
    limit,
    load_mixture,
    load_training,
    mixture_examples,
    pack,
    to_examples,
    validation,
)
from reproduction.data.token_cache import tokenize_once
from reproduction.records.files import RecordError, checksum
from reproduction.training.checkpoints import first_line
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec, UnfitBase

# The caller shows progress. DeepSpeed, which accelerate imports, logs that it finds no GPU.
disable_progress_bar()
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

_RANDOM_INIT_SEED = 0
"""Seed of random base weights. They are part of the base's identity, hence independent of the run's seed."""


def base_checksum(folder: Path | str) -> str:
    """Compute the SHA-256 of a model folder's safetensors file, or of the shards' checksums in the order of names.

    Raises:
        UnfitBase: the folder has no safetensors file, or one that cannot be read.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise UnfitBase(f"No .safetensors file in {folder}: point model.path_or_id at a model saved in that format.")
    try:
        sums = [checksum(path) for path in files]
    except RecordError as error:
        raise UnfitBase(str(error)) from error
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


def base_identity(spec: ModelSpec) -> str:
    """Return the identity of a base model, independent of its location and of the dtype that it is loaded in.

    It is the checksum of the weights (of the spec, or of the folder), or "id@revision" for a hub id. For random
    weights, drawn with a fixed seed, it is their dtype, their device type and the hash of the model's config.
    """
    if spec.init == "random":
        config = model_config(spec).to_diff_dict()
        for other in ("_name_or_path", "transformers_version", "dtype"):
            config.pop(other, None)
        shape = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
        on_gpu = "cuda-" if default_device().type == "cuda" else ""
        return f"random-{on_gpu}{spec.dtype}-{shape}"
    if spec.checksum is not None:
        return spec.checksum
    if Path(spec.path_or_id).is_dir():
        return base_checksum(spec.path_or_id)
    return f"{spec.path_or_id}@{spec.revision or 'main'}"


def default_device() -> torch.device:
    """Return this process's GPU, or the CPU if there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def build_base(spec: ModelSpec) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Build the base model on the default device and its tokenizer; see `build_model` and `build_tokenizer`."""
    return build_model(spec, default_device()), build_tokenizer(spec)


def build_model(spec: ModelSpec, device: torch.device | str | None = None) -> PreTrainedModel:
    """Build the base model, in evaluation mode with no parameter frozen.

    Random weights with `spec.shape` need neither files nor the hub. Under `torch.device("meta")` they take no memory
    either: such a model can be adapted and counted, but not run.

    Args:
        spec: the model's spec.
        device: device of the weights, also for drawing random ones (a GPU draws other numbers than the CPU); None is
            the default device.

    Raises:
        UnfitBase: the folder or hub id cannot be loaded or lacks weights, or no model has the spec's shape.
    """
    options = {"dtype": getattr(torch, spec.dtype)}
    if spec.attention is not None:
        options["attn_implementation"] = spec.attention
    on_gpu = device is not None and torch.device(device).type == "cuda"
    if spec.init == "random":
        config = model_config(spec)
        with (
            torch.random.fork_rng(devices=[device] if on_gpu else []),
            torch.device(device) if device else nullcontext(),
        ):
            torch.manual_seed(_RANDOM_INIT_SEED)
            return AutoModelForCausalLM.from_config(config, **options).eval()
    if on_gpu:
        options["device_map"] = {"": device}  # loads to the device without a copy in CPU memory
    model, found = _load(AutoModelForCausalLM, spec, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    # transformers initialises these tensors randomly with only a warning. Superfluous tensors are ignored.
    for key, wrong in (
        ("missing_keys", "the weights (model.safetensors) lack, of what config.json asks for,"),
        ("mismatched_keys", "the weights (model.safetensors) and config.json have different shapes of"),
    ):
        if names := sorted(name if isinstance(name, str) else name[0] for name in found[key]):
            raise _unfit(spec, f"{wrong} {first_and_count(names)}")
    return model.eval()


def model_config(spec: ModelSpec) -> PreTrainedConfig:
    """Return the model's transformers config. Raises `UnfitBase`."""
    if spec.shape is None:
        return _load(AutoConfig, spec)
    try:
        config = AutoConfig.for_model(**spec.shape)
        known = AutoConfig.for_model(spec.shape["model_type"]).to_dict()
    except (TypeError, ValueError) as error:
        raise UnfitBase(f"No model has the shape {dict(spec.shape)} of {spec.name!r}: {error}") from error
    if unknown := sorted(spec.shape.keys() - known.keys()):  # transformers ignores unknown keys
        raise UnfitBase(f"model.shape of {spec.name!r} has {unknown[0]}, which is no key of {type(config).__name__}.")
    return config


def build_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base model, or the one that its spec names instead.

    A tokenizer without a padding token pads with its end token; padding is always masked.

    Raises:
        UnfitBase: it cannot be loaded.
    """
    if spec.tokenizer is not None:
        spec = dataclasses.replace(spec, path_or_id=spec.tokenizer, revision=None)
    tokenizer = _load(AutoTokenizer, spec)
    if spec.tokenizer is not None:
        tokenizer.model_max_length = 2**30  # it may have been made for a model with another context length
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(auto_class: type, spec: ModelSpec, **options):
    options |= {"revision": spec.revision or "main", "local_files_only": Path(spec.path_or_id).is_dir()}
    try:
        # Without trust_remote_code transformers asks on standard input whether to run a model's own code.
        return auto_class.from_pretrained(spec.path_or_id, trust_remote_code=False, **options)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # of any kind: it is a file's content that the loader stumbles over
        raise _unfit(spec, f"{type(error).__name__}: {first_line(error)}") from error


def _unfit(spec: ModelSpec, reason: str) -> UnfitBase:
    return UnfitBase(
        f"Base model {spec.name!r} could not be loaded from {spec.path_or_id!r} ({reason}): check the path and its "
        "files (those of a run come back by deleting its folder and training it again), or for a hub id the network "
        "and, where it is gated, its terms and `hf auth login`."
    )


def first_and_count(names: Sequence[str]) -> str:
    """Return the first name and the number of the others, as text."""
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")


class SharedBase:
    """Base model that stays in memory between the cells of a process, so that 8B weights are loaded only once."""

    def __init__(self) -> None:
        self._spec: ModelSpec | None = None
        self._cached: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._lent: weakref.ref[PreTrainedModel] | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def take(self, spec: ModelSpec) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the base model and its tokenizer, as from `build_base`. The cache is empty until `give_back`.

        Raises:
            UnfitBase: see `build_base`.
        """
        cached, self._cached = self._cached, None
        if cached is None or spec != self._spec:
            cached = None  # freed before the next one is loaded: memory may not hold both
            cached = build_base(spec)
        self._spec, self._lent, self._tokenizer = spec, weakref.ref(cached[0]), cached[1]
        return cached

    def give_back(self, model: PreTrainedModel | PeftModel) -> None:
        """Cache the base that was taken last, with or without adapters; ignore any other model."""
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        if self._lent is None or base is not self._lent():
            return
        if isinstance(model, PeftModel):
            base = model.unload()
        base.disable_input_require_grads()  # set by gradient checkpointing
        self._cached = (base.requires_grad_(True).eval(), self._tokenizer)


shared_base = SharedBase()


def build_adapted(model: PreTrainedModel, method: MethodSpec, seed: int) -> PreTrainedModel | PeftModel:
    """Prepare the base model for a method: exactly the parameters that it trains require gradients.

    All generators are seeded first, so that new weights depend only on the seed. A model on the meta device can be
    adapted and counted, but not run.

    Raises:
        ValueError: PEFT knows no such method, its config refuses the arguments, or `method.frozen` or
            `method.long_rows` does not fit it.
    """
    set_seed(seed)
    model.requires_grad_(method.kind == "full")
    if method.kind != "peft":
        return model
    known = {each.value: config for each, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if method.peft_type not in known:
        raise ValueError(
            f"PEFT knows no method {method.peft_type!r}: method.peft_type is one of {', '.join(sorted(known))}."
        )
    config_class = known[method.peft_type]
    try:
        config = config_class(task_type="CAUSAL_LM", **method.arguments)
    except TypeError as error:
        raise ValueError(
            f"{config_class.__name__} refuses method.arguments={dict(method.arguments)}: {error}."
        ) from None
    # With a model on the meta device PEFT otherwise initialises every new weight on the CPU and discards it.
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    with warnings.catch_warnings():
        # A misspelt key would train another method than the one that the run is named after.
        warnings.filterwarnings("error", r"The following \w+_pattern keys did not match", RuntimeWarning)
        try:
            adapted = get_peft_model(model, config, low_cpu_mem_usage=on_meta)
        except RuntimeWarning as warning:
            keys = str(warning).rpartition("ignored: ")[2].rstrip(".")
            raise ValueError(f"method.arguments has keys of a pattern that match no adapted module: {keys}.") from None
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    for name in _matching(trained, method.long_rows, key="long_rows"):
        _lengthen(adapted, name)
    for name in _matching(trained, method.frozen, key="frozen"):
        trained[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in trained.values()):
        raise ValueError(f"method.frozen={list(method.frozen)} leaves nothing to train: name less of it.")
    return adapted


def _matching(trained: Mapping[str, torch.nn.Parameter], patterns: Sequence[str], *, key: str) -> list[str]:
    """Return the names that match any pattern, each once. Raises ValueError for a pattern without a match."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in trained):
            kinds = ", ".join(sorted({re.sub(r"^.*\.layers\.\d+\.", "", name) for name in trained}))
            raise ValueError(f"method.{key} has {pattern!r}, which finds none of the trained parameters: {kinds}.")
    return [name for name in trained if any(re.search(pattern, name) for pattern in patterns)]


@torch.no_grad()
def _lengthen(model: PeftModel, name: str) -> None:
    """Scale each row of a parameter (r, in) to the mean row norm of the frozen weight (out, in) that it adapts."""
    path = name
    while not isinstance(layer := model.get_submodule(path := path.rpartition(".")[0]), BaseTunerLayer):
        pass
    weight, parameter = dequantize_module_weight(layer.get_base_layer()), model.get_parameter(name)
    if parameter.shape[1:] != weight.shape[1:]:
        raise ValueError(
            f"method.long_rows finds {name} {tuple(parameter.shape)}, whose rows are none of a weight of shape "
            f"{tuple(weight.shape)}: name a matrix that reads the layer's input."
        )
    parameter.copy_(weight.float().norm(dim=1).mean() * torch.nn.functional.normalize(parameter, dim=1))


def build_data(
    spec: DataSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    root: Path | str | None,
    revisions: Mapping[str, str] | None = None,
) -> tuple[TokenizedSet, TokenizedSet | None]:
    """Return the tokenized training set and its validation set (None if `spec.validation_rows` is 0).

    Neither has held-out rows (`spec.held_out`). The validation set is split off before `spec.limit` applies, and is
    never packed, so that each row is scored separately.

    Raises:
        DataError: see `reproduction.data.load_rows` and `reproduction.data.tokenize`.
        ValueError: the template rejects a row, or no training rows are left.
    """
    mixed, source = spec.parts is not None, {"root": root, "revisions": revisions, "held_out": spec.held_out}
    rows = load_mixture(spec.parts, **source) if mixed else load_training(spec.name, **source)
    rest, apart = validation(
        rows, spec.validation_rows, lambda row: instruction_of(row["part"] if mixed else spec.name, row)
    )

    def tokenized(rows: list[dict]) -> TokenizedSet:
        template = spec.prompt_template
        examples = (
            mixture_examples(rows, template=template) if mixed else to_examples(spec.name, rows, template=template)
        )
        return tokenize_once(examples, tokenizer, max_length=spec.max_length)

    training = tokenized(limit(rest, spec.limit))
    return (
        pack(training, spec.max_length) if spec.packing else training,
        tokenized(apart) if apart else None,
    )
