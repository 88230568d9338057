"""The three small bases that ship with the package, found by name and checked against their recipes.

A base is a folder that transformers' `from_pretrained` reads: configuration, weights in bf16, tokenizer. Beside them
stand `recipe.json` (how it was trained, and a sha256 for each file) and `loss_curve.csv`. Left out: loading the
model, which is the caller's business.
"""

import hashlib
import json
from pathlib import Path

BASES = ("pebble", "cobble", "gravel")
RECIPE = "recipe.json"

_FOLDER = Path(__file__).parent / "bases"


class CorruptBaseError(ValueError):
    """A shipped base is not the one that was trained."""


def base_path(name: str) -> Path:
    """Folder of a shipped base.

    Raises:
        ValueError: no base has this name.
    """
    if name not in BASES:
        raise ValueError(f"No base is called {name!r}: choose one of {', '.join(BASES)}.")
    return _FOLDER / name


def verify(name: str) -> str:
    """Check every file of a base against its recipe, and return the sha256 of the weights.

    Raises:
        ValueError: no base has this name.
        CorruptBaseError: a file is missing or differs.
    """
    return verify_folder(base_path(name))


def verify_folder(folder: Path) -> str:
    """`verify` for a base in any folder."""
    recipe = folder / RECIPE
    if not recipe.is_file():
        raise CorruptBaseError(
            f"{recipe} is missing: check out the file again, or make the base with scripts/pretrain_tinyworld.py."
        )
    expected = json.loads(recipe.read_text(encoding="utf-8"))["sha256"]
    for file, digest in expected.items():
        found = sha256(folder / file) if (folder / file).is_file() else "nothing"
        if found != digest:
            raise CorruptBaseError(
                f"{folder / file} has sha256 {found}, its recipe says {digest}: check out the file again, "
                "or make the base anew with scripts/pretrain_tinyworld.py."
            )
    return expected["model.safetensors"]


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
