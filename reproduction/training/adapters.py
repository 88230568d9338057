"""Loading the trained model of a finished run, or an external adapter, for evaluation.

A run records its method and the SHA-256 of each saved file in saved.json; a changed, missing or added file is an error.
An external adapter must have exactly the tensors that its config requires, because PEFT initialises missing ones. Their
values are not checked.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME, get_peft_model_state_dict, load_peft_weights
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reproduction.records import Run, write_json
from reproduction.records.files import checksum, checksums, difference
from reproduction.training import build
from reproduction.training.checkpoints import first_line
from reproduction.training.spec import MethodSpec, ModelSpec

BASE_FILE = "base.json"
"""File beside an adapter's weights with the base model that it was trained on."""

SAVED_FILE = "saved.json"
"""File in a run's folder: {"config": SHA-256 of config.json, "method": a PEFT type or "full", "folder": name of the
saved folder, "files": name → SHA-256}."""

CONFIG = "config.json"
FULL = "full"
"""Method of a run that trained every weight."""

WAY_OUT = "put it back as it was saved (a run's comes back by deleting the run's folder and training again)"


class WrongBase(ValueError):
    """An adapter was loaded on another base model than the one it was trained on."""


class UnfitAdapter(ValueError):
    """A saved adapter or model cannot be used; the message names the file and the remedies."""


def record_base(adapter: Path, base: ModelSpec) -> None:
    """Record beside an adapter the base model that it was trained on, for the check in `load_adapter`.

    Sets that PEFT wrote in an order that varies between processes are sorted: the same training gives the same files.
    """
    config = _read_object(adapter / CONFIG_NAME)
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), list):
            config[key].sort()
    (adapter / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    record = {"name": base.name, "identity": build.base_identity(base), "path_or_id": base.path_or_id}
    (adapter / BASE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def record_saved(saved: Path, method: str) -> None:
    """Record the saved files in a run's folder, for `require_saved`; `method` is a PEFT type or `FULL`."""
    record = {"config": _config_checksum(saved.parent), "method": method, "folder": saved.name}
    write_json(saved.parent / SAVED_FILE, record | {"files": checksums(saved)})


def require_saved(folder: Path) -> None:
    """Raise UnfitAdapter unless a run's folder holds its saved files and its config.json, unchanged."""
    record = folder / SAVED_FILE
    with _unfit_file(record):
        saved = _read_object(record)
        changed = difference(folder / saved["folder"], saved["files"])
        if changed is None and saved["config"] != _config_checksum(folder):
            changed = f"{folder / CONFIG} has changed, or is of another run,"
    if changed:
        raise UnfitAdapter(f"{changed} since the run saved its {saved['folder']} ({record}): {WAY_OUT}.")


def _config_checksum(folder: Path) -> str | None:
    """Return the checksum of a run's config.json, None if it is missing."""
    return checksum(folder / CONFIG) if (folder / CONFIG).exists() else None


def load_adapter(
    model: PreTrainedModel, adapter: Path | str, base: ModelSpec, *, allow_unknown_base: bool = False
) -> PeftModel:
    """Load a saved adapter on the base model that it was trained on, frozen, for evaluation.

    Args:
        model: built from `base`.
        adapter: the adapter's folder; the folder of a run must have the recorded files.
        base: the model's spec.
        allow_unknown_base: accept an adapter without a record of its base model, as plain PEFT saves it.

    Raises:
        WrongBase: `base` is another model; it is unchanged.
        UnfitAdapter: a file of the folder is missing, damaged, or does not fit the others or the base.
        FileNotFoundError: the folder has no adapter.
    """
    adapter = Path(adapter).resolve()
    if not (adapter / CONFIG_NAME).exists():
        raise FileNotFoundError(f"No adapter in {adapter}: it has no {CONFIG_NAME}; {WAY_OUT}.")
    run = adapter.parent
    if adapter.name == "adapter" and (Run(run).status or (run / SAVED_FILE).exists()):
        require_saved(run)
    if not allow_unknown_base or (adapter / BASE_FILE).exists():
        _require_base(adapter / BASE_FILE, base)
    return _put_on(model, adapter, base)


def load_finished(
    folder: Path | str,
    base: ModelSpec,
    method: MethodSpec,
    *,
    take: Callable[[ModelSpec], tuple[PreTrainedModel, PreTrainedTokenizerBase]] = build.build_base,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Return the trained model of a finished run, for evaluation, and its tokenizer; the base itself for kind "none".

    An adapter is loaded on the base that `take` returns, for example `reproduction.training.build.SharedBase.take`.

    Raises:
        WrongBase, UnfitAdapter, UnfitBase: see `require_saved`, `load_adapter`, `build_base`.
    """
    if method.kind == "none":
        return take(base)
    folder = Path(folder)
    require_saved(folder)
    if method.kind == "full":
        own = dataclasses.replace(
            base, path_or_id=str(folder / "model"), init="pretrained", shape=None, revision=None, tokenizer=None
        )
        return build.build_model(own, build.default_device()), build.build_tokenizer(base)
    _require_base(folder / "adapter" / BASE_FILE, base)
    model, tokenizer = take(base)
    return _put_on(model, folder / "adapter", base), tokenizer


def _put_on(model: PreTrainedModel, adapter: Path, base: ModelSpec) -> PeftModel:
    safe, pickled = adapter / SAFETENSORS_WEIGHTS_NAME, adapter / WEIGHTS_NAME
    file = pickled if pickled.exists() and not safe.exists() else safe
    with _unfit_file(file, f" with {CONFIG_NAME} and the base model {base.name}"):
        _read_object(adapter / CONFIG_NAME)
        file.open("rb").close()  # fails early: PEFT asks the hub for a missing file
        weights = load_peft_weights(str(adapter), device="cpu")
        adapted = PeftModel.from_pretrained(model, adapter)
        _require_same_tensors(weights, adapted)
    return adapted.eval()


def _require_same_tensors(weights: dict[str, torch.Tensor], adapted: PeftModel) -> None:
    """Raise ValueError unless the file has the tensors that PEFT saves for the adapter.

    With an adapted embedding PEFT saves the base's own weights too.
    """
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    allowed = own | {n for n in get_peft_model_state_dict(adapted, save_embedding_layers=True) if ".base_layer." in n}
    for names, wrong in (
        (own - weights.keys(), "it lacks"),
        (weights.keys() - allowed, "the adapter has no place for its"),
    ):
        if names:
            raise ValueError(f"{wrong} {build.first_and_count(sorted(names))}")


def _require_base(file: Path, base: ModelSpec) -> None:
    if not file.exists():
        raise UnfitAdapter(
            f"{file.parent} has no {BASE_FILE}, which says what base model the adapter was trained on: {WAY_OUT}; of "
            f"an adapter that was saved elsewhere and belongs on {base.name} say allow_unknown_base=true."
        )
    with _unfit_file(file):
        record = _read_object(file)
        name, identity = str(record["name"]), str(record["identity"])
    here = build.base_identity(base)
    if identity != here:
        raise WrongBase(
            f"Adapter {file.parent} was trained on {name} ({identity[:12]}) and not on {base.name} ({here[:12]}): load "
            "it on the model that it was trained on."
        )


@contextlib.contextmanager
def _unfit_file(file: Path, what: str = "") -> Iterator[None]:
    """Convert any error to an UnfitAdapter that names this file."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # each tuner and reader of PEFT has its own exceptions
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else first_line(error)
        reason = why if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {why}"
        raise UnfitAdapter(f"{file} cannot be used{what} ({reason[:300]}): {WAY_OUT}.") from error


def _read_object(file: Path) -> dict[str, Any]:
    value = json.loads(file.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} holds a {type(value).__name__}, not an object")
    return value
