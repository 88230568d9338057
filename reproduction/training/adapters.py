"""From a finished run's folder, or an adapter's from elsewhere, back to the model to evaluate.

A run records the SHA-256 of each file that it saved, and its method, in saved.json; a file that changed since, is gone
or has come is refused. Of an adapter from elsewhere nothing of the kind is known: what PEFT would draw anew or pass
over with a warning is a refusal here, and so is whatever else is wrong with a file, in one sentence that names it. Left
out: numbers that changed there in a file that is whole otherwise.
"""

import contextlib
import dataclasses
import json
import math
import os
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import torch
from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import (
    CONFIG_NAME,
    SAFETENSORS_WEIGHTS_NAME,
    WEIGHTS_NAME,
    get_peft_model_state_dict,
    load_peft_weights,
)
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reproduction.records import Run, write_json
from reproduction.records.checksums import checksum, checksums, difference
from reproduction.training.build import base_identity, build_base, build_model, build_tokenizer, home, listed
from reproduction.training.checkpoints import first_line
from reproduction.training.spec import MethodSpec, ModelSpec

BASE_FILE = "base.json"
"""Beside an adapter's weights: the base model that it was trained on."""

SAVED_FILE = "saved.json"
"""Of a run's folder: {"config": SHA-256 of its config.json, "method": a type of PEFT's or "full", "folder": of what it
saved, "files": name → SHA-256}."""

SETS = ("target_modules", "exclude_modules")
"""Keys of PEFT's configs whose lists are sets."""

CONFIG = "config.json"
"""Of a run's folder: what it was asked for, which `reproduction.records.Run` writes before training."""

FULL = "full"
"""The method of a run that trained every weight."""

WAY_OUT = "put it back as it was saved (a run's comes back by deleting the run's folder and training again)"


class WrongBase(ValueError):
    """An adapter put on another base model than the one it was trained on."""


class UnfitAdapter(ValueError):
    """A saved adapter or model that cannot be used as it lies there; the sentence names the file and the ways out."""


def record_base(adapter: Path, base: ModelSpec) -> None:
    """Writes beside an adapter which base model it was trained on, for `load_adapter` to compare.

    In its config PEFT has written sets in an order that every process draws anew: they are sorted, so that the same
    training gives the same files.
    """
    config = _object(adapter / CONFIG_NAME)
    ordered = {
        key: sorted(value) if key in SETS and isinstance(value, list) else value for key, value in config.items()
    }
    (adapter / CONFIG_NAME).write_text(json.dumps(ordered, indent=2, sort_keys=True), encoding="utf-8")
    record = {"name": base.name, "identity": base_identity(base), "path_or_id": base.path_or_id}
    (adapter / BASE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def record_saved(saved: Path, method: str) -> None:
    """Writes into a run's folder what it saved, for `require_saved` to compare.

    Args:
        saved: the folder of the adapter or model, right under the run's.
        method: the type of the adapter's config, or `FULL`.
    """
    write_json(
        saved.parent / SAVED_FILE,
        {"config": _asked(saved.parent), "method": method, "folder": saved.name, "files": checksums(saved)},
    )


def require_saved(folder: Path, method: MethodSpec | None = None, *, saved: Path | None = None) -> None:
    """Raises UnfitAdapter unless a run's folder holds what it saved, unchanged, beside its own config.json.

    Args:
        folder: of the run.
        method: what it must be of; None is any.
        saved: the folder that it must be in; None is the one that was recorded.
    """
    record = folder / SAVED_FILE
    with _told(record):
        values = _object(record)
        asked, found, name, files = (values.get(key) for key in ("config", "method", "folder", "files"))
        if name not in ("adapter", "model") or not isinstance(files, dict):
            raise ValueError(f"folder is {name!r} and files are {files!r}")
    if saved not in (None, folder / name):
        raise UnfitAdapter(
            f"{saved} is not what the run in {folder} saved: give {folder / name}, or move it elsewhere."
        )
    changed = difference(folder / name, files)
    if changed is None and asked != _asked(folder):
        changed = f"{folder / CONFIG} has changed, or is of another run,"
    if changed:
        raise UnfitAdapter(f"{changed} since the run saved its {name} ({record}): {WAY_OUT}.")
    if method is not None and found != (wanted := method.peft_type or FULL):
        raise UnfitAdapter(f"{folder / name} is of {found} ({record}), and the run is of {wanted}: {WAY_OUT}.")


def _asked(folder: Path) -> str | None:
    """The checksum of a run's config.json; None where there is none."""
    return checksum(folder / CONFIG) if os.path.lexists(folder / CONFIG) else None


def load_adapter(
    model: PreTrainedModel, adapter: Path | str, base: ModelSpec, *, allow_unknown_base: bool = False
) -> PeftModel:
    """Puts a saved adapter on the base model that it was trained on, frozen, for evaluation.

    Args:
        model: built from `base`.
        adapter: its folder; in a run's folder its files are held against what the run recorded.
        base: the model's spec.
        allow_unknown_base: take an adapter that does not say on which base model it was trained, as plain PEFT saves
            it.

    Raises:
        WrongBase: `base` is another model; nothing was injected into it.
        UnfitAdapter: a file of the folder is gone, damaged, or does not go with the others or with the base.
        FileNotFoundError: the folder holds no adapter.
    """
    adapter = Path(adapter).resolve()
    if not os.path.lexists(adapter / CONFIG_NAME):
        raise FileNotFoundError(f"No adapter in {adapter}: it has no {CONFIG_NAME}; {WAY_OUT}.")
    if Run(adapter.parent).status or os.path.lexists(adapter.parent / SAVED_FILE):
        require_saved(adapter.parent, saved=adapter)
    if not allow_unknown_base or os.path.lexists(adapter / BASE_FILE):
        _require_base(adapter / BASE_FILE, base)
    return _put_on(model, adapter, base)


def _put_on(model: PreTrainedModel, adapter: Path, base: ModelSpec) -> PeftModel:
    config = _config(adapter / CONFIG_NAME)
    safe, pickled = adapter / SAFETENSORS_WEIGHTS_NAME, adapter / WEIGHTS_NAME
    file = pickled if os.path.lexists(pickled) and not os.path.lexists(safe) else safe
    with _told(file):
        _require_file(file)
        file.open("rb").close()  # PEFT would ask the hub for a file that is not here
        weights = load_peft_weights(str(adapter), device="cpu")
    with _told(file, f"with {CONFIG_NAME} and the base model {base.name}"), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        adapted = PeftModel.from_pretrained(model, adapter, config=config)
        _require_same(weights, adapted)
    return adapted.eval()


def load_finished(
    folder: Path | str,
    base: ModelSpec,
    method: MethodSpec,
    *,
    take: Callable[[ModelSpec], tuple[PreTrainedModel, PreTrainedTokenizerBase]] = build_base,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """The trained model of a finished run, for evaluation, and its tokenizer; the base itself for kind "none".

    An adapter is put on the base that `take` gives, such as `reproduction.training.bases.SharedBase.take`.

    Raises:
        WrongBase, UnfitAdapter, UnfitBase: see `require_saved`, `load_adapter`, `build_base`.
    """
    if method.kind == "none":
        return take(base)
    folder = Path(folder)
    require_saved(folder, method)
    if method.kind == "full":
        own = dataclasses.replace(
            base, path_or_id=str(folder / "model"), init="pretrained", shape=None, revision=None, tokenizer=None
        )
        return build_model(own, home()), build_tokenizer(base)
    _require_base(folder / "adapter" / BASE_FILE, base)
    model, tokenizer = take(base)
    return _put_on(model, folder / "adapter", base), tokenizer


@contextlib.contextmanager
def _told(file: Path, what: str = "") -> Iterator[None]:
    """Whatever goes wrong inside is told as wrong with this file."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, WrongBase):
        raise
    except Exception as error:  # each tuner and reader of PEFT's has exceptions of its own
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else first_line(error)
        reason = why if isinstance(error, ValueError | OSError | UserWarning) else f"{type(error).__name__}: {why}"
        raise UnfitAdapter(f"{file} cannot be used{what and ' ' + what} ({reason[:300]}): {WAY_OUT}.") from error


def _require_file(file: Path) -> None:
    """Raises ValueError for what is there and no file, such as a pipe, on which reading would wait for ever."""
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError("it is no file")


def _object(file: Path) -> dict[str, Any]:
    _require_file(file)
    value = json.loads(file.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def _config(file: Path) -> PeftConfig:
    """The config as PEFT reads it, after every value has been held against the type that PEFT declares for it."""
    with _told(file):
        values = _object(file)
        kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(values.get("peft_type"))
        if kind is None:
            raise ValueError(f"peft_type is {values.get('peft_type')!r}, which is no method that PEFT knows")
        types = typing.get_type_hints(kind)
        values = {key: value for key, value in values.items() if key in types or value is not None}  # of another PEFT
        for key, value in values.items():
            if key not in types:
                raise ValueError(f"{key} is no key of {kind.__name__}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key} is {value}")
            given = 1 if isinstance(value, float) else value  # lora_alpha: int may be 0.5
            try:
                if value is not None:
                    pydantic.TypeAdapter(types[key]).validate_json(json.dumps(given), strict=True)
            except pydantic.ValidationError as error:
                raise ValueError(f"{key} is {value!r}: {error.errors()[0]['msg']}") from error
        return kind(**kind.check_kwargs(**values))


def _require_base(file: Path, base: ModelSpec) -> None:
    if not os.path.lexists(file):
        raise UnfitAdapter(
            f"{file.parent} has no {BASE_FILE}, which says what base model the adapter was trained on: {WAY_OUT}; of "
            f"an adapter that was saved elsewhere and belongs on {base.name} say allow_unknown_base=true."
        )
    with _told(file):
        record = _object(file)
        for key in ("name", "identity", "path_or_id"):
            if not isinstance(record.get(key), str):
                raise ValueError(f"{key} is {record.get(key)!r}, not a text")
    name, identity = record["name"], record["identity"]
    here = base_identity(base)
    if identity != here:
        raise WrongBase(
            f"Adapter {file.parent} was trained on {name} ({identity[:12]}) and not on {base.name} ({here[:12]}): load "
            "it on the model that it was trained on."
        )


def _require_same(weights: dict[str, torch.Tensor], adapted: PeftModel) -> None:
    """Raises ValueError unless the file has the tensors that PEFT would save of the adapter, in their kinds of number.

    With an adapted embedding PEFT saves the base's own weights too.
    """
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    lacking = own.keys() - weights.keys()
    everything = get_peft_model_state_dict(adapted, save_embedding_layers=True)
    own |= {name: tensor for name, tensor in everything.items() if ".base_layer." in name}
    strange = weights.keys() - own.keys()
    both = weights.keys() & own.keys()
    other = [name for name in both if weights[name].is_floating_point() != own[name].is_floating_point()]
    for names, wrong in (
        (lacking, "it lacks"),
        (strange, "the adapter has no place for its"),
        (other, "the adapter has another kind of numbers than its"),
    ):
        if names:
            raise ValueError(f"{wrong} {listed(sorted(names))}")
