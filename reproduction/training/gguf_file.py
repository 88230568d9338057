"""GGUF files as base models: each is de-quantised once into an ordinary model folder.

    <cache>/gguf/<SHA-256 of the file>/    config.json, model.safetensors in bfloat16, the tokenizer's files
                                           gguf.json: sha256 of the file, bits of a quantised weight

One process at a time writes a folder, under a temporary name, and renames it. It may be deleted at any time.
"""

import fcntl
import functools
import importlib.util
import os
import re
import shutil
from collections import Counter
from pathlib import Path

from reproduction.records import write_json
from reproduction.records.files import checksum
from reproduction.system.cache import VARIABLE, cache_folder
from reproduction.training.spec import UnfitBase

ORIGIN = "gguf.json"
"""File in a de-quantised folder that describes the original GGUF file."""


def dequantised(path: Path) -> Path:
    """Return the folder with the model of a GGUF file, created if missing (half a minute for 135M parameters).

    Raises:
        UnfitBase: the file cannot be read or is not a model that transformers supports, the package gguf is missing,
            caching is off, or its folder cannot be written.
    """
    cache = cache_for(path)
    try:
        stat = path.stat()
        folder = cache.absolute() / _sha256(path, stat.st_mtime_ns, stat.st_size)
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (folder.parent / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not folder.is_dir():  # another process may have made it meanwhile
                    _convert(path, folder)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UnfitBase(f"{path} cannot be de-quantised ({error.filename or cache}: {why}).") from error
    return folder


def cache_for(what: Path | str) -> Path:
    """Return the cache folder of de-quantised models. Raises `UnfitBase`, naming ``what``, if caching is off."""
    cache = cache_folder("gguf")
    if cache is None:
        raise UnfitBase(
            f"{what} is de-quantised into the cache, which {VARIABLE}= turns off: unset it, or name a folder."
        )
    return cache


def require_gguf(what: Path | str) -> None:
    """Raise `UnfitBase`, naming ``what``, if the package gguf is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise UnfitBase(f"{what} needs the package gguf: pip install -e './reproduction[gguf]'.")


def dequantised_before(checksum: str | None) -> Path | None:
    """Return the existing folder for the GGUF file with this SHA-256, or None."""
    cache = cache_folder("gguf")
    if cache is None or checksum is None or not (cache / checksum / ORIGIN).is_file():
        return None
    return cache.absolute() / checksum


def _convert(path: Path, folder: Path) -> None:
    require_gguf(path)
    import torch  # imported here: it takes seconds, and only de-quantising needs it
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from reproduction.training.build import first_and_count
    from reproduction.training.checkpoints import first_line

    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
    source["trust_remote_code"] = False  # else transformers prompts on standard input
    try:
        bits = _bits(path)
        model, found = AutoModelForCausalLM.from_pretrained(
            **source,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),  # else GPU kernels keep the weights packed
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # of any kind: it is a file's content that the loader stumbles over
        raise UnfitBase(
            f"{path} is no GGUF file of a model that transformers reads ({type(error).__name__}: {first_line(error)}): "
            "fetch it again, or take the model in safetensors."
        ) from error
    if found["missing_keys"]:
        raise UnfitBase(f"{path} lacks weights of its own model: {first_and_count(sorted(found['missing_keys']))}.")
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed process
    try:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        write_json(aside / ORIGIN, {"sha256": folder.name, "bits": bits})
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _bits(path: Path) -> int | None:
    """Return the bits of the commonest type of quantised weights, 4 for Q4_1; None if all are floats."""
    from gguf import GGUFReader

    sizes: Counter[str] = Counter()
    for tensor in GGUFReader(path).tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    quantised = [(size, name) for name, size in sizes.items() if name not in ("F64", "F32", "F16", "BF16")]
    return int(re.search(r"\d+", max(quantised)[1])[0]) if quantised else None


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    return checksum(path)  # cached: one process composes all cells of a table
