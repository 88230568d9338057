"""The cache folder for what was computed once: `$IDLORA_CACHE`, else `idlora` beside the hub's cache ($HF_HOME).

`IDLORA_CACHE=` (empty) turns every cache off. What is kept there is found by its content alone, so the folder may be
deleted at any time and shared by any number of checkouts.
"""

import os
from pathlib import Path

from huggingface_hub.constants import HF_HOME

VARIABLE = "IDLORA_CACHE"


def cache_folder(kind: str) -> Path | None:
    """The folder for one kind of content ("tokenized", "gguf"), which need not exist; None where caching is off."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    return Path(named or Path(HF_HOME) / "idlora").expanduser() / kind
