"""Decorator of Hydra scripts, which passes the composed config to the script's body."""

from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.paths import CONFIGS


def hydra_command(config: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorate a script's body, which takes the composed configs/<config>.yaml; see `reproduction.cli.command`."""
    register_resolvers()
    return lambda body: hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(command(body))
