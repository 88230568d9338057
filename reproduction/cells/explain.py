"""Hydra's refusals of a command line, each as one sentence with the nearest name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from reproduction.cells.nearest import did_you_mean, nearest

ADVICE = (
    ("==", "a value follows one = sign"),
    ("[", "write a list as 'key=[a,b]', in quotes and without spaces"),
    ("{", "write a dict as 'key={a:1,b:2}' and an interpolation as 'key=${other.key}', in quotes"),
)


def explain(error: Exception, overrides: Sequence[str], *, keys: Sequence[str], folders: Sequence[Path]) -> str:
    """Return the sentence on an error that Hydra raised for a config's overrides.

    Args:
        error: one of `REFUSALS`.
        overrides: the overrides, as typed.
        keys: the config's groups and dotted keys without the overrides that fail.
        folders: the folders of configs.
    """
    if isinstance(error, OverrideParseException):
        return _misspelt(error.override, keys)
    if isinstance(error, yaml.YAMLError):
        return "a config is not YAML: " + " ".join(str(error).split())
    options = group_options(folders)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if reason := _refused(override, keys, options, one="Ambiguous" in str(error)):
            return reason
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return _absent(f"{group}={name}" if group else f"config {name}", name, error.options or options[group])
    return " ".join(" ".join(str(error.__cause__ or error).splitlines()[:2]).split())


def _absent(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what}; {did_you_mean(name, known)}"


def _misspelt(override: str, keys: Sequence[str]) -> str:
    """Return the sentence on an override that Hydra cannot parse."""
    key, equals, value = override.partition("=")
    if equals and not key.isascii():  # Hydra reads the value, and not the key, as a mistake
        return _unknown(key, keys)
    if not equals or not re.fullmatch(r"[~+]{0,2}[\w./@:-]+", key):
        written = re.sub(r"[^\w.]", "", key) or "key"
        return f"{override!r} is not key=value: write {written}=…, without spaces around the = sign"
    if value.startswith("[") and "=" in value:
        return f"{override} cannot be read as key=value: quote each entry, '{key}=[\"train.max_steps=4\"]'"
    advice = next((way for sign, way in ADVICE if sign in override), f"put the value in quotes, '{key}=\"{value}\"'")
    return f"{override} cannot be read as key=value: {advice}"


def _refused(override: Override, keys: Sequence[str], options: Mapping[str, Sequence[str]], *, one: bool) -> str | None:
    """Return the sentence on an override that the config cannot take; None if it can. ``one``: -m is not given."""
    typed, key = override.input_line, override.key_or_group
    value = typed.partition("=")[2]
    if not key:
        return _misspelt(typed, keys)
    if override.is_sweep_override():
        several = f"{typed} is several values: '{key}=[{value}]' is a list, and -m runs the command once for each value"
        return several if one else None
    if key in options and key in keys and not override.is_delete():
        chosen = override.value()
        for name in map(str, chosen if isinstance(chosen, list) else [chosen]):
            if name not in options[key] and name != "None":
                return _absent(f"{key}={name}", name, options[key])
    known = key in keys or key.startswith("hydra")
    if override.type == OverrideType.ADD and known:
        return f"{typed} would add {key}, which this config has: give {key}={value}"
    if known or override.is_add() or override.is_force_add():
        return None
    parent = key.rpartition(".")[0]
    if parent in keys and not any(each.startswith(f"{parent}.") for each in keys):
        return f"{typed}: {parent} is a value and has no keys of its own"
    return _unknown(key, keys)


def _unknown(key: str, keys: Sequence[str]) -> str:
    near = nearest(key, [each for each in keys if not key.startswith(f"{each}.")])
    way = did_you_mean(key, near) if near else "--help lists the keys, and --cfg job all of them with their values"
    return f"{key} is not a key of this config; {way}"


def keys_of(config: DictConfig) -> list[str]:
    """Return the groups and the dotted keys of a composed config, inner nodes included and Hydra's left out."""
    found = [str(group) for group in config.get("hydra", {}).get("runtime", {}).get("choices", {})]

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for name, inner in node.items():
                found.append(f"{prefix}{name}")
                walk(inner, f"{prefix}{name}.")

    walk(OmegaConf.to_container(config), "")
    return [key for key in dict.fromkeys(found) if not key.startswith("hydra")]


def group_options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Return config group → its files' names; group "" has the configs that scripts are run with."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            place = path.relative_to(folder)
            found.setdefault("" if place.parent == Path() else place.parent.as_posix(), []).append(path.stem)
    return found


def unread(overrides: Sequence[str], config: DictConfig) -> str | None:
    """Return the sentence on a key that an override with + adds beside the config's own, where nothing reads it."""
    text, keys = OmegaConf.to_yaml(config), keys_of(config)
    added = {typed[1:].partition("=")[0]: typed for typed in overrides if re.match(r"\+[a-z]", typed)}
    paths = [f"{key}." for key in added]
    own = [key for key in keys if not any(f"{key}.".startswith(path) or path.startswith(f"{key}.") for path in paths)]
    for key, typed in added.items():
        top = key.partition(".")[0]
        is_new = top in keys and not any(f"{each}.".startswith(f"{top}.") for each in own)
        if is_new and not re.search(rf"\$\{{{top}[.}}]", text):
            near = nearest(key, own)
            return f"{typed} adds a key that nothing reads" + (f"; {did_you_mean(key, near)}" if near else "")
    return None


REFUSALS = (HydraException, yaml.YAMLError, ValueError)
"""Errors with which Hydra refuses a command line or a config."""
