"""Conversion of plain config values to typed dataclasses; the code below sees no config object."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

T = TypeVar("T")


class ConfigError(ValueError):
    """A config key or value that cannot be used; the message names it and says what to do."""


def parse_dataclass(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Create an instance of the dataclass ``kind``, converting each plain value losslessly to its field's type.

    ``where`` is the config's node, "" its top. Raises `ConfigError`, one sentence that names the key, for an unknown or
    missing key, an ill-typed value, or a value that the dataclass refuses.
    """
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{where}.{unknown[0]} is not a key of {where}; its keys are {', '.join(known)}")
    try:
        return _adapter(kind).validate_python(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (*filter(None, [where]), *first["loc"])))
        reason = f"{first['msg']}, got {first['input']!r}"
        if first["type"] == "value_error":  # of the dataclass itself, which names the value and often the key
            reason = str(first["ctx"]["error"]).removesuffix(".")
        raise ConfigError(reason if f"{key}." in reason else f"{key}: {reason}") from error


@functools.cache
def _adapter(kind: type[T]) -> pydantic.TypeAdapter[T]:
    return pydantic.TypeAdapter(kind)
