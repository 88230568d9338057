"""Writing an override so that Hydra and OmegaConf read the value back as it was."""

import itertools
import re
import shlex
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

_BARE = re.compile(r"(?!(?:null|true|false|inf|nan)$)(?:[a-z_/]|\.(?!\d))[\w./-]*", re.ASCII | re.IGNORECASE)


def override(key: str, value: Any) -> str:
    """``key=value`` for Hydra: a text, path, number, truth value, None, or a list of them.

    Quoted only where it has to be. A text is itself, whatever is in it: ``${`` is no interpolation.
    """
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str | PathLike):
        text = fspath(value)
        if _BARE.fullmatch(text):
            return text
        # OmegaConf's escape of an interpolation; backslashes count for it only before one.
        return QuotedString(re.sub(r"(\\*)\$\{", r"\1\1\\${", text), Quote.double).with_quotes()
    return f"[{','.join(map(_written, value))}]"


def pasted(script: str, values: Mapping[str, Any], *written: str) -> str:
    """A script's command with an override for each value, quoted for Hydra and for the shell that it is pasted into.

    ``written`` are arguments that are quoted for Hydra already.
    """
    return shlex.join(["python", f"scripts/{script}.py", *itertools.starmap(override, values.items()), *written])
