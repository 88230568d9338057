"""What makes two runs the same run: the scientific part of the config, in one canonical spelling, hashed.

A run's folder is named after this hash, with no timestamp, so the same cell of two tables is one run, and a changed
config is another folder. Raising a ``protocol_version`` anywhere in the config invalidates old results.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

IDENTITY = ("model", "method", "data", "train", "seed", "scale")
"""The parts of config.json that are hashed; the experiment's name is not, so that two tables share a cell."""

BASE_IDENTITY = ("model", "scale")
"""The parts hashed for an untuned base (method kind "none"): nothing about training can change it."""

IGNORED = frozenset({
    "label", "labels", "paths", "logging", "launch",
    "gguf",  # where else a model's weights are to be had: which were trained, the checksum or the hub id says
    # How a step is cut up, spread out, saved and watched; the effective batch is what counts and stays in.
    "micro_batch_size", "gradient_checkpointing", "deepspeed", "save_steps", "report_to", "threads", "device",
    "group_by_length", "liger_kernel", "attention",
})  # fmt: skip
"""Keys dropped at every depth: they may change without the run becoming another one."""


def canonical(config: Mapping[str, Any]) -> str:
    """The config as one line of JSON: keys sorted, numbers in one spelling, `IGNORED` keys dropped at every depth.

    1e-4 is 0.0001 and 2.0 is 2, tuples are lists, and True is not 1. ``path_or_id`` is dropped where a non-empty
    ``checksum`` stands beside it: the bytes of the weights are the identity, not where they lie.

    Raises ValueError for a number that is not finite, a key that is not a string, or a value that JSON has no word for.
    """
    return json.dumps(_normal(config, "config"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(config: Mapping[str, Any], length: int = 10) -> str:
    """The first ``length`` hex digits of the SHA-256 of `canonical`."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:length]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's config.json that is hashed. Raises ValueError naming a part that is missing."""
    try:
        parts = BASE_IDENTITY if config["method"]["kind"] == "none" else IDENTITY
        return {part: config[part] for part in parts}
    except (KeyError, TypeError) as error:
        raise ValueError(f"a run's config needs {error.args[0]!r} to be identified; it has {sorted(config)}") from error


def run_digest(config: Mapping[str, Any], length: int = 10) -> str:
    """The `digest` of a run's `identity`."""
    return digest(identity(config), length)


def run_name(config: Mapping[str, Any]) -> str:
    """``<model>-<data>-<method>-s<seed>-<digest>``, or ``<model>-base-<digest>`` for an untuned base.

    >>> run_name({"model": {"name": "pebble"}, "method": {"kind": "none"}, "scale": "tiny"})[:12]
    'pebble-base-'

    Raises ValueError where a part is missing, or a name holds what no folder's name should.
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
