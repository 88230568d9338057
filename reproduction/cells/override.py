"""Hydra overrides that Hydra and OmegaConf parse back to the same value."""

import itertools
import re
import shlex
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

_BARE = re.compile(r"(?!(?:null|true|false|inf|nan)$)(?:[a-z_/]|\.(?!\d))[\w./-]*", re.ASCII | re.IGNORECASE)


def override(key: str, value: Any) -> str:
    """Return ``key=value`` for Hydra; the value is a text, path, number, bool, None, or a list of these.

    It is quoted only if necessary. A text is taken literally: ``${`` is no interpolation.
    """
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str | PathLike):
        text = fspath(value)
        if _BARE.fullmatch(text):
            return text
        # Escapes interpolations as OmegaConf does: it reads backslashes as escapes only before one.
        return QuotedString(re.sub(r"(\\*)\$\{", r"\1\1\\${", text), Quote.double).with_quotes()
    return f"[{','.join(map(_written, value))}]"


def pasted(script: str, values: Mapping[str, Any], *written: str) -> str:
    """Return a script's command with an override for each value, quoted for Hydra and for the shell.

    ``written`` are arguments that are already quoted for Hydra.
    """
    return shlex.join(["python", f"scripts/{script}.py", *itertools.starmap(override, values.items()), *written])
