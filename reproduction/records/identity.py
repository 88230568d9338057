"""Identity of a run: a hash of the scientific part of its config in canonical form.

A run's folder is named after this hash, without a timestamp: the same cell of two tables is one run, and a changed
config is another folder. Raising a ``protocol_version`` anywhere in the config invalidates old results.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

IDENTITY = ("model", "method", "data", "train", "seed", "scale")
"""Hashed parts of config.json; the experiment's name is not among them, so that two tables can share a cell."""

BASE_IDENTITY = ("model", "scale")
"""Hashed parts for an untuned base (method kind "none"), which does not depend on training."""

IGNORED = frozenset({
    "label", "labels", "paths", "logging", "launch",
    "gguf",  # another source of the same model; the checksum or the hub id identifies the trained weights
    # How a step is divided, distributed, saved and tracked; the effective batch is hashed.
    "micro_batch_size", "gradient_checkpointing", "deepspeed", "save_steps", "report_to", "threads", "device",
    "group_by_length", "liger_kernel", "attention",
})  # fmt: skip
"""Keys that are not part of the identity, at any depth."""


def canonical(config: Mapping[str, Any]) -> str:
    """Return the config as one line of JSON: sorted keys, normalised numbers, without `IGNORED` keys at any depth.

    1e-4 equals 0.0001, 2.0 equals 2, tuples equal lists, and True differs from 1. ``path_or_id`` is dropped beside a
    non-empty ``checksum``: the content of the weights is their identity, not their location.

    Raises ValueError for a number that is not finite, a key that is not a string, or a value that JSON cannot express.
    """
    return json.dumps(_normal(config, "config"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(config: Mapping[str, Any], length: int = 10) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of `canonical`."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:length]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hashed part of a run's config.json. Raises ValueError naming a missing part."""
    try:
        parts = BASE_IDENTITY if config["method"]["kind"] == "none" else IDENTITY
        return {part: config[part] for part in parts}
    except (KeyError, TypeError) as error:
        raise ValueError(f"a run's config needs {error.args[0]!r} to be identified; it has {sorted(config)}") from error


def run_digest(config: Mapping[str, Any], length: int = 10) -> str:
    """Return the `digest` of a run's `identity`."""
    return digest(identity(config), length)


def run_name(config: Mapping[str, Any]) -> str:
    """Return ``<model>-<data>-<method>-s<seed>-<digest>``, or ``<model>-base-<digest>`` for an untuned base.

    >>> run_name({"model": {"name": "pebble"}, "method": {"kind": "none"}, "scale": "tiny"})[:12]
    'pebble-base-'

    Raises ValueError if a part is missing, or a name has characters that do not fit a folder name.
    """
    tail = run_digest(config)
    if config["method"]["kind"] == "none":
        return f"{_name(config, 'model')}-base-{tail}"
    names = "-".join(_name(config, part) for part in ("model", "data", "method"))
    return f"{names}-s{config['seed']}-{tail}"


def _name(config: Mapping[str, Any], part: str) -> str:
    name = str(config[part].get("name", ""))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+]*", name):
        raise ValueError(f"{part}.name is {name!r}; a folder's name takes letters, digits and _ . + only")
    return name


def _normal(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; a config holds finite numbers only")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}; a config's keys are strings")
        dropped = IGNORED | {"path_or_id"} if value.get("checksum") else IGNORED
        return {key: _normal(item, f"{where}.{key}") for key, item in value.items() if key not in dropped}
    if isinstance(value, list | tuple):
        return [_normal(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ValueError(f"{where} is a {type(value).__name__} ({value!r}); a config holds text, numbers, lists and maps")
