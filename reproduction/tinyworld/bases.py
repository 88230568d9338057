"""The three small bases that ship with the package: lookup by name, and checks against their recipes.

A base is a folder for transformers' `from_pretrained`: configuration, weights in bf16, tokenizer; and `recipe.json`
(training settings, sha256 of each file) and `loss_curve.csv`.
"""

import hashlib
import json
from pathlib import Path

BASES = ("pebble", "cobble", "gravel")
RECIPE = "recipe.json"
_AGAIN = "check out the file again, or make the base with scripts/pretrain_tinyworld.py."


class CorruptBaseError(ValueError):
    """A shipped base differs from its recipe."""


def base_path(name: str) -> Path:
    """Return the folder of a shipped base. Raises ValueError for an unknown name."""
    if name not in BASES:
        raise ValueError(f"No base is called {name!r}: choose one of {', '.join(BASES)}.")
    return Path(__file__).parent / "bases" / name


def verify(base: str | Path) -> str:
    """Check every file of a base, given by name or folder, against its recipe; return the sha256 of the weights.

    Raises:
        ValueError: unknown name.
        CorruptBaseError: a file is missing or differs.
    """
    folder = base if isinstance(base, Path) else base_path(base)
    if not (folder / RECIPE).is_file():
        raise CorruptBaseError(f"{folder / RECIPE} is missing: {_AGAIN}")
    expected = json.loads((folder / RECIPE).read_text(encoding="utf-8"))["sha256"]
    for file, digest in expected.items():
        found = sha256(folder / file) if (folder / file).is_file() else "nothing"
        if found != digest:
            raise CorruptBaseError(f"{folder / file} has sha256 {found}, its recipe says {digest}: {_AGAIN}")
    return expected["model.safetensors"]


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
