"""The cache folder: `$IDLORA_CACHE`, else `idlora` beside the hub's cache ($HF_HOME).

`IDLORA_CACHE=` (empty) turns every cache off. Entries are keyed by content, so the folder may be deleted at any time
and shared by several checkouts.
"""

import os
from pathlib import Path

from huggingface_hub.constants import HF_HOME

VARIABLE = "IDLORA_CACHE"


def cache_folder(kind: str) -> Path | None:
    """Return the folder for one kind of content ("tokenized", "gguf"), which may not exist; None if caching is off."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    return Path(named or Path(HF_HOME) / "idlora").expanduser() / kind
