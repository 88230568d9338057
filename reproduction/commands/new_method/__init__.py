"""Scaffold of a method: its code with the closed form, its registration, its config, and a table that shows it."""

import keyword
import re
from collections.abc import Mapping
from pathlib import Path

import jinja2
import yaml
from safetensors import safe_open

from reproduction.cells.config_schema import ConfigError
from reproduction.paths import REPOSITORY

TUNERS = "idlora/tuners"
FILES = {
    "method.py.jinja": TUNERS + "/{name}.py",
    "method.yaml.jinja": "configs/method/{name}.yaml",
    "grid.yaml.jinja": "experiments/table_{name}/grid.yaml",
}
"""Template in this folder → file of the checkout."""

LONGEST = 20
"""Letters of a name with which every line of the code stays short enough."""

BASE = "reproduction/tinyworld/bases/pebble/model.safetensors"
"""A model whose parameters have the names of every Llama's."""


def new_method(name: str, *, repository: Path = REPOSITORY) -> list[str]:
    """Write a working method of this name into a checkout and register it; return the files, the changed one last.

    It starts as LoRA, trains, and is to be edited. Raises `ConfigError` for a name that cannot be a method's, before
    anything is written.
    """
    registration = repository / TUNERS / "__init__.py"
    if not registration.is_file():
        raise ConfigError(f"{repository} has no {TUNERS}/__init__.py: make a method in a checkout of this project")
    stem = "".join(part.capitalize() for part in name.split("_"))
    files = {template: path.format(name=name) for template, path in FILES.items()}
    _check(name, stem, files, repository=repository)
    here = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(loader=here, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for template, path in files.items():
        text = templates.get_template(template).render(name=name, stem=stem)
        (repository / path).parent.mkdir(exist_ok=True)
        (repository / path).write_text(text, encoding="utf-8")
    text = registration.read_text(encoding="utf-8")
    registration.write_text(_registered(text, name, stem), encoding="utf-8")
    return [*files.values(), f"{TUNERS}/__init__.py"]


def next_steps(name: str) -> str:
    """Return the commands that follow on `new_method`, one a line, each with its purpose."""
    steps = {
        f"python -m pytest tests/tuners/test_tuner_contract.py -k {name}": "what every method keeps to",
        f"python scripts/train.py experiment=multitask_llama3 method={name} scale=tiny hparams=default": "train it",
        f"make tune METHOD={name} EXPERIMENT=multitask_llama3": "its learning rate",
        f"make table_{name}": "beside LoRA and ID-LoRA",
    }
    return "\n".join(f"    {step}   # {purpose}" for step, purpose in steps.items())


def _check(name: str, stem: str, files: Mapping[str, str], *, repository: Path) -> None:
    """Raise `ConfigError` if the name is no identifier in lower case, is taken, or would be confused with another."""
    is_word = re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) and not keyword.iskeyword(name)
    if not is_word or len(name) > LONGEST or yaml.safe_load(name) != name:
        raise ConfigError(
            f"{name!r} cannot be a method's name: give an identifier in lower case, of at most {LONGEST} letters, such "
            "as NAME=mylora"
        )
    from peft import PeftType  # seconds to import

    if name.upper() in PeftType.__members__:
        raise ConfigError(
            f"{name!r} is one of PEFT's own methods: take another name, or a file of configs/method with peft_type: "
            f"{name.upper()} to use PEFT's"
        )
    taken = [path for path in (*files.values(), f"{TUNERS}/{name}") if (repository / path).exists()]
    classes = re.compile(rf"\b{stem}(Config|Linear|Layer|Model)\b")
    taken += [
        path.relative_to(repository).as_posix()
        for path in sorted((repository / TUNERS).rglob("*.py"))
        if classes.search(path.read_text(encoding="utf-8"))
    ]
    if taken:
        raise ConfigError(f"{name!r} is taken, by {taken[0]}: take another name")
    with safe_open(repository / BASE, framework="np") as base:
        alike = [key for key in base.keys() if f"{name}_" in key]  # noqa: SIM118  (it is no dict)
    if alike:
        raise ConfigError(
            f"{name!r} cannot be a method's name: PEFT trains all that has {name}_ in its name, and the base's own "
            f"{alike[0]} does: take another name"
        )


def _registered(text: str, name: str, stem: str) -> str:
    """Return idlora/tuners/__init__.py with the method's import, in its place by the alphabet, and registration."""
    new = f"from {TUNERS.replace('/', '.')}.{name} import {stem}Config, {stem}Model"
    lines = text.splitlines()
    imports = [number for number, line in enumerate(lines) if line.startswith("from ")]
    at = next((number for number in imports if lines[number] > new), lines.index("", imports[-1]))
    lines.insert(at, new)
    return "\n".join([*lines, f'register("{name}", {stem}Config, {stem}Model)', ""])
