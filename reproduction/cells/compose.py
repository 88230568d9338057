"""Hydra: the configs of configs/ and of a user's own folders, composed, and resolved to plain values."""

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
    """The config `configs/<root>.yaml` with Hydra overrides applied, interpolations still unresolved.

    Raises `ConfigError` for an override that Hydra refuses.
    """
    register_resolvers()
    GlobalHydra.instance().clear()  # a script's own config is composed by now, and Hydra takes one at a time
    own = [f"file://{folder}" for folder in own_folders()]
    where = [override("hydra.searchpath", own)] if own else []
    with hydra.initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        try:
            return hydra.compose(config_name=root, overrides=[*where, *overrides])
        except hydra.errors.HydraException as error:
            reason = str(error.__cause__ or error).splitlines()
            raise ConfigError(f"the config {root} does not take {list(overrides)}: {' '.join(reason[:3])}") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain dicts and lists; `ConfigError` where a value is missing or cannot be resolved."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        sentence = str(error).splitlines()[0].removeprefix("ConfigError raised while resolving interpolation: ")
        raise ConfigError(sentence) from error


def own_folders() -> list[Path]:
    """A user's own folders of configs: what --config-dir or hydra.searchpath gave the script that this is."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(each.path) for each in sources if each.schema == "file" and each.provider != "main"]


def group_files(group: str) -> list[Path]:
    """The files of a group of configs, ours before a user's own."""
    return [path for folder in (CONFIGS, *own_folders()) for path in sorted((folder / group).glob("*.yaml"))]
