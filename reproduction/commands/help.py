"""The help of Hydra scripts: their docstring, then one line for each config group and key.

The words are the comments beside the keys, and beside the groups in the defaults lists, of configs/*.yaml.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from reproduction.cells.compose import compose
from reproduction.cells.explain import group_options
from reproduction.paths import CONFIGS

WIDTH, NAMES = 100, 34
"""Columns of the whole text, and of the keys with their defaults."""

LINE = re.compile(r"(?P<group>  - (?:optional )?)?(?P<name>\w+):(?: (?P<value>\S.*?))??(?:\s+# (?P<words>.*))?$")
PARENT = re.compile(r"  - (?P<root>[a-z]\w*)(?:\s+#.*)?$")
FOOTER = """\
group.key=value sets a key of a group (model.dtype=float32). --cfg job prints every key and value; -m runs each \
combination of values as in seed=0,1; --config-dir=<folder> adds your configs; --hydra-help lists Hydra's options."""


@dataclass(frozen=True)
class Entry:
    """A config group, or a key by its dotted name, with its description."""

    name: str
    words: str
    is_group: bool


def entries(root: str) -> list[Entry]:
    """Return the groups and keys that configs/<root>.yaml and the roots under it describe, each once."""
    found = {entry.name: entry for entry in _entries(root)}
    return sorted(found.values(), key=lambda entry: not entry.is_group)


def _entries(name: str, prefix: str = "", *, nested: bool = True) -> Iterator[Entry]:
    """Yield the entries of a file of configs/, those of its parents first; the later of two with a name counts.

    ``nested``: also the keys of a group with the only file default.yaml.
    """
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if (parent := PARENT.match(line)) and (CONFIGS / f"{parent['root']}.yaml").is_file():
            yield from _entries(parent["root"], nested=False)
    for line in lines:
        if (match := LINE.match(line)) and match["name"] != "defaults":
            yield Entry(prefix + match["name"], match["words"] or "", bool(match["group"]))
            if nested and match["group"] and match["value"] == "default":
                yield from _entries(f"{match['name']}/default", f"{match['name']}.")


def help_text(about: str, root: str, *, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    """Return the help of a script.

    Args:
        about: the script's docstring.
        root: its config, configs/<root>.yaml.
        overrides: overrides of the command line; the defaults are those that remain.
        folders: the user's folders of configs.

    Raises `ConfigError` for an override that Hydra refuses.
    """
    config, options = compose(root, overrides, folders=folders, with_hydra=True), group_options([CONFIGS, *folders])
    chosen = config.hydra.runtime.choices
    groups = {each.name: each.words for each in entries(root) if each.is_group}
    keys = {each.name: each.words for each in entries(root) if not each.is_group and each.name not in groups}
    parts = [
        about.strip(),
        "",
        *["groups, each one of the files in configs/<group> (+3: and 3 longer names):"] * bool(groups),
    ]
    for name, words in groups.items():
        value = chosen.get(name) or _value(list(config[name]))  # of several files it has a key for each
        if value != "default" and "/" not in value:  # the group's keys are listed, or the value follows from others
            parts += _listed(name, value, f"{words}: {_shortened(options[name])}")
    parts.append("keys, with their defaults:")
    for name in sorted(keys, key=lambda name: "." in name):
        parts += _listed(name, _value(OmegaConf.select(config, name)), keys[name])
    return "\n".join([*parts, "", textwrap.fill(FOOTER, WIDTH, break_on_hyphens=False)])


def _listed(name: str, value: str, words: str) -> list[str]:
    """Return the lines of an entry; a value that is too long for its column is cut."""
    room = max(NAMES - len(name) - 2, 1)
    setting = f"{name}={value if len(value) <= room else value[: room - 1] + '…'}"
    indent = " " * (NAMES + 3)
    lines = textwrap.wrap(words, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [f"  {setting:<{NAMES}} {lines[0].strip()}", *lines[1:]]


def _value(value: object) -> str:
    """Return a config's value as an override has it."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return re.sub(r"[' ]", "", str(value)).replace("None", "null")


def _shortened(names: Sequence[str]) -> str:
    """Return the names, with those that extend another one only counted: "idlora (+24)"."""
    heads = [name for name in names if not any(name.startswith(f"{other}_") for other in names)]
    counts = {head: sum(name.startswith(f"{head}_") for name in names) for head in heads}
    return ", ".join(f"{head} (+{count})" if count else head for head, count in counts.items())
