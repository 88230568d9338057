"""Composes the Hydra configs of configs/ and of a user's folders, and resolves them to plain values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.override import override
from reproduction.cells.resolvers import register_resolvers
from reproduction.paths import CONFIGS


def compose(root: str = "train", overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `configs/<root>.yaml` with Hydra overrides, leaving interpolations unresolved.

    Raises `ConfigError` for an override that Hydra refuses.
    """
    register_resolvers()
    GlobalHydra.instance().clear()  # Hydra allows one instance; a script's own config is composed
    own = [f"file://{folder}" for folder in own_folders()]
    where = [override("hydra.searchpath", own)] if own else []
    with hydra.initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        try:
            return hydra.compose(config_name=root, overrides=[*where, *overrides])
        except hydra.errors.HydraException as error:
            reason = str(error.__cause__ or error).splitlines()
            raise ConfigError(f"the config {root} does not take {list(overrides)}: {' '.join(reason[:3])}") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a config to plain dicts and lists. Raises `ConfigError` if a value is missing or cannot be resolved."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        sentence = str(error).splitlines()[0].removeprefix("ConfigError raised while resolving interpolation: ")
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
