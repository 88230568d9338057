"""Composes the Hydra configs of configs/ and of a user's folders, and resolves them to plain values."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.explain import REFUSALS, explain, group_options, keys_of
from reproduction.cells.nearest import did_you_mean, nearest
from reproduction.cells.override import override
from reproduction.cells.resolvers import register_resolvers
from reproduction.paths import CONFIGS


def compose(
    root: str = "train",
    overrides: Sequence[str] = (),
    *,
    folders: Sequence[Path] | None = None,
    with_hydra: bool = False,
) -> DictConfig:
    """Compose `configs/<root>.yaml` with Hydra overrides, leaving interpolations unresolved.

    Args:
        root: the config's name.
        overrides: Hydra overrides.
        folders: the user's folders of configs; None is `own_folders`.
        with_hydra: whether the key ``hydra`` stays in the config.

    Raises:
        ConfigError: Hydra refuses an override.
    """
    folders = own_folders() if folders is None else [folder.absolute() for folder in folders if folder.is_dir()]
    try:
        return _compose(root, overrides, folders, with_hydra=with_hydra)
    except REFUSALS as error:
        raise ConfigError(refusal(error, root, overrides=overrides, folders=folders)) from error


def _compose(root: str, overrides: Sequence[str], folders: Sequence[Path], *, with_hydra: bool = False) -> DictConfig:
    register_resolvers()
    GlobalHydra.instance().clear()  # Hydra allows one instance; a script's own config is composed
    where = [override("hydra.searchpath", [f"file://{folder}" for folder in folders])] if folders else []
    with hydra.initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return hydra.compose(root, overrides=[*where, *overrides], return_hydra_config=with_hydra)


def refusal(error: Exception, root: str, *, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    """Return one sentence on Hydra's refusal to compose a root with overrides; ``folders`` are the user's configs."""
    folders = [folder.absolute() for folder in folders if folder.is_dir()]
    groups, keys = group_options([CONFIGS, *folders]), []
    chosen = [each for each in overrides if each.lstrip("+").partition("=")[0] in groups]
    for kept in (chosen, []):  # the keys depend on the choices, if these are right
        with contextlib.suppress(*REFUSALS):
            keys = keys_of(_compose(root, kept, folders, with_hydra=True))
            break
    return explain(error, overrides, keys=keys, folders=[CONFIGS, *folders])


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a config to plain dicts and lists. Raises `ConfigError` if a value is missing or cannot be resolved."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        sentence = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).splitlines()[0])
        if lost := re.match(r"Interpolation key '(.+)' not found", sentence):
            sentence = f"{error.full_key}: ${{{lost[1]}}} is not a key of this config"
            if near := nearest(lost[1], keys_of(config)):
                sentence += f"; {did_you_mean(lost[1], near)}"
        raise ConfigError(sentence) from error


def own_folders() -> list[Path]:
    """Return the user's config folders: --config-dir and hydra.searchpath of the running script."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(each.path) for each in sources if each.schema == "file" and each.provider != "main"]


def group_files(group: str) -> list[Path]:
    """Return the files of a config group, the project's before the user's."""
    return [path for folder in (CONFIGS, *own_folders()) for path in sorted((folder / group).glob("*.yaml"))]
