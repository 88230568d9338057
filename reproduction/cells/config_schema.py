"""Plain values to typed dataclasses at the border; below it no code sees a config object."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

T = TypeVar("T")


class ConfigError(ValueError):
    """A config key or value that cannot be used; the message names it and the way out."""


def parse_dataclass(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """An instance of the dataclass ``kind`` from plain values, each converted to its field's type without loss.

    Raises `ConfigError`, one sentence that names ``where`` and the key: an unknown key, a missing one, an ill-typed
    value, or whatever the dataclass itself refuses.
    """
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{where}.{unknown[0]} is not a key of {where}; its keys are {', '.join(known)}")
    try:
        return _adapter(kind).validate_python(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(f"{key}: {first['msg']}, got {first['input']!r}") from error


@functools.cache
def _adapter(kind: type[T]) -> pydantic.TypeAdapter[T]:
    return pydantic.TypeAdapter(kind)
