"""Where configs lie: the repository's own, and the folders that a user adds with --config-dir."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from reproduction.paths import CONFIGS


def own_folders() -> list[Path]:
    """A user's own folders of configs: what --config-dir or hydra.searchpath gave the script that this is."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(each.path) for each in sources if each.schema == "file" and each.provider != "main"]


def group_files(group: str) -> list[Path]:
    """The files of a group of configs, ours before a user's own."""
    return [path for folder in (CONFIGS, *own_folders()) for path in sorted((folder / group).glob("*.yaml"))]
