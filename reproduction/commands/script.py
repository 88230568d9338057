"""Decorator of Hydra scripts, which passes the composed config to the script's body."""

import functools
import os
import traceback
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from reproduction.cells.compose import refusal
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.explain import REFUSALS, unread
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import NotComplete, command
from reproduction.commands.help import help_text
from reproduction.paths import CONFIGS

Body = Callable[[DictConfig], None]


def hydra_command(config: str) -> Callable[[Body], Callable[[], None]]:
    """Decorate a script's body, which takes the composed configs/<config>.yaml; see `reproduction.cli.command`.

    What Hydra refuses (an unknown key, group or value) is bad input, and told in one sentence with the nearest name.
    """
    register_resolvers()

    def decorate(body: Body) -> Callable[[], None]:
        @functools.wraps(body)
        def job(config: DictConfig) -> None:
            if lost := unread(_typed(), config):
                raise ConfigError(lost)
            body(config)

        run = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(_one_of_many(command(job)))

        @command
        @functools.wraps(body)
        def main() -> None:
            asked = _arguments()
            folders = [Path(asked.config_dir)] if asked.config_dir else []
            if asked.help:
                overrides = [] if asked.multirun else asked.overrides  # a sweep has no one value to show
                print(help_text(body.__globals__["__doc__"], config, overrides=overrides, folders=folders))
                return
            # Hydra raises its errors instead of printing them, and calls its job as the script.
            os.environ |= {"HYDRA_FULL_ERROR": "1", "HYDRA_MAIN_MODULE": Path(body.__code__.co_filename).stem}
            try:
                run()
            except ConfigError:
                raise
            except REFUSALS as error:
                root = asked.config_name or config
                raise ConfigError(refusal(error, root, overrides=asked.overrides, folders=folders)) from error

        return main

    return decorate


def _arguments() -> Namespace:
    """Return the command line as Hydra parses it. Raises `ConfigError` for an option that Hydra does not have."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; keys are given as key=value, and --hydra-help lists the options")

    parser.error = refuse
    return parser.parse_args()


def _one_of_many(body: Body) -> Body:
    """Make a failed run of Hydra's -m an exception, which Hydra raises after the other runs."""

    @functools.wraps(body)
    def run(config: DictConfig) -> None:
        try:
            body(config)
        except (Exception, SystemExit) as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN or getattr(error, "code", 1) == 130:
                raise
            if isinstance(error, Exception):
                traceback.print_exc()  # another process passes the exception on without its traceback
            raise NotComplete(f"the run {' '.join(_typed())} failed") from None

    return run


def _typed() -> list[str]:
    """Return the overrides of the running job as they were typed, interpolations unresolved."""
    return OmegaConf.to_container(HydraConfig.get().overrides.task)
