"""Typed protocols of the evaluations that a config's ``eval`` group and ``protocol`` key name."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reproduction.cells.compose import group_files
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.resolve_paths import present
from reproduction.evals.task import Protocol, load_task

DEFAULT, ALL = "default", "all"
"""Values of the root key ``protocol`` other than names: each benchmark's default protocols, or all of them."""


def protocols(
    evals: dict[str, dict[str, Any]],
    data_root: Path | None,
    chosen: str | Sequence[str] = DEFAULT,
    *,
    revisions: Mapping[str, str] | None = None,
) -> tuple[Protocol, ...]:
    """Return the evaluations of a composed ``eval`` group by benchmark, each benchmark's default ones first.

    ``chosen`` is "default", "all", or names of protocols; a benchmark without any of the names keeps its default. A
    benchmark or protocol marked ``where_present`` is omitted if its data are not `resolve_paths.present`.

    Raises `ConfigError` for a name that no benchmark has, or a setting that is both shared and a protocol's own.
    """
    for key, values in evals.items():
        if missing := [part for part in ("benchmark", "protocols", "default") if part not in values]:
            raise ConfigError(f"eval.{key} has no {missing[0]}: write it as the files of configs/eval do")
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    known = dict.fromkeys([*_protocol_names(), *(name for values in evals.values() for name in values["protocols"])])
    if unknown := [name for name in names if name not in known and name not in (DEFAULT, ALL)]:
        raise ConfigError(f"protocol={unknown[0]} is none of {', '.join((DEFAULT, ALL, *known))}")
    found = []
    for key, values in evals.items():
        shared = dict(values)
        try:
            task = load_task(shared["benchmark"], shared.get("file"))
        except ValueError as error:
            raise ConfigError(f"eval.{key}: {error}") from error
        default, own = shared.pop("default"), shared.pop("protocols")
        wanted = {*names, *(default if DEFAULT in names else ())}
        asked = list(own) if ALL in names else [name for name in own if name in wanted] or default
        for name in sorted(asked, key=lambda name: name not in default):  # default ones first
            protocol, where_present = _protocol(name, own, shared, defaults=task.defaults, where=f"eval.{key}")
            if not where_present or present(protocol.task.data, data_root, revisions=revisions):
                found.append(protocol)
    return tuple(found)


def _protocol(
    name: str,
    own: Mapping[str, Mapping[str, Any]],
    shared: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any],
    where: str,
) -> tuple[Protocol, bool]:
    """Return a benchmark's protocol from its own settings, the shared ones and the benchmark's defaults, and whether
    it is marked ``where_present``.
    """
    if name not in own:
        raise ConfigError(f"{where}.default names {name}, which is none of its protocols {', '.join(own)}")
    if twice := sorted(set(own[name]) & set(shared)):
        raise ConfigError(
            f"{where}.{twice[0]} is a setting of the protocol {name}, and is not shared: give it under "
            f"{where}.protocols.{name}"
        )
    settings = {**defaults, **shared, **own[name], "name": name}
    where_present = settings.pop("where_present", False)
    return parse_dataclass(Protocol, settings, where=f"{where}.protocols.{name}"), where_present


@functools.cache
def _protocol_names() -> tuple[str, ...]:
    """Return every protocol name in configs/eval. A table may request one even if a cell has no such benchmark."""
    groups = (yaml.safe_load(path.read_text(encoding="utf-8")) or {} for path in group_files("eval"))
    benchmarks = [values for group in groups for values in group.values() if isinstance(values, dict)]  # no `defaults`
    return tuple(dict.fromkeys(name for values in benchmarks for name in values.get("protocols", ())))
