"""A GGUF file as a base model: de-quantised once, and from then on a folder like any other.

    <cache>/gguf/<SHA-256 of the file>/    config.json, model.safetensors in bfloat16, the tokenizer's files
                                           gguf.json: sha256 of the file, bits of a quantised weight

A folder is written aside and renamed, by one process at a time: what is there is whole. It may be deleted at any time.
"""

import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shutil
from pathlib import Path

from reproduction.records import write_json
from reproduction.system.cache import VARIABLE, cache_folder
from reproduction.training.spec import UnfitBase

KIND = "gguf"
"""Of the cache's folders."""

ORIGIN = "gguf.json"
"""In a folder that was made from a GGUF file: what file that was."""

_FLOATS = ("F64", "F32", "F16", "BF16")


def dequantised(path: Path) -> Path:
    """The folder with the model of a GGUF file, made where it is not there yet (half a minute for 135M parameters).

    Raises:
        UnfitBase: the file cannot be read or is no model that transformers knows, the package gguf is missing, or
            caching is off or its folder cannot be written.
    """
    cache = cache_for(path)
    try:
        about = path.stat()
        checksum = _sha256(path, about.st_mtime_ns, about.st_size)
        folder = cache.absolute() / checksum
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (folder.parent / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not folder.is_dir():  # by another process meanwhile
                    _convert(path, folder)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UnfitBase(f"{path} cannot be de-quantised ({error.filename or cache}: {why}).") from error
    return folder


def cache_for(what: Path | str) -> Path:
    """The cache's folder of all that is de-quantised. Raises `UnfitBase`, naming ``what``, where caching is off."""
    cache = cache_folder(KIND)
    if cache is None:
        raise UnfitBase(
            f"{what} is de-quantised into the cache, which {VARIABLE}= turns off: unset it, or name a folder."
        )
    return cache


def require_gguf(what: Path | str) -> None:
    """Raise `UnfitBase`, naming ``what``, where the package gguf is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise UnfitBase(f"{what} needs the package gguf: pip install -e './reproduction[gguf]'.")


def dequantised_before(checksum: str | None) -> Path | None:
    """The folder with the model of the GGUF file that has this SHA-256, None where there is none here."""
    cache = cache_folder(KIND)
    if cache is None or checksum is None or not (cache / checksum / ORIGIN).is_file():
        return None
    return cache.absolute() / checksum


def _convert(path: Path, folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
    bits, *parts = _read(path)
    try:
        for part in parts:
            part.save_pretrained(aside)
        write_json(aside / ORIGIN, {"sha256": folder.name, "bits": bits})
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _read(path: Path) -> tuple:
    """The bits of a quantised weight (None: floats alone), the model in bfloat16 and the tokenizer."""
    require_gguf(path)
    import torch  # seconds: a file that was de-quantised before needs none of it
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from reproduction.training.build import listed
    from reproduction.training.checkpoints import first_line

    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
    where["trust_remote_code"] = False  # unsaid, transformers asks on standard input
    try:
        bits = _bits(path)
        model, found = AutoModelForCausalLM.from_pretrained(
            **where,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),  # else a GPU's kernels would keep them packed
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # of any kind: it is a file's content that the loader stumbles over
        raise UnfitBase(
            f"{path} is no GGUF file of a model that transformers reads ({type(error).__name__}: {first_line(error)}): "
            "fetch it again, or take the model in safetensors."
        ) from error
    if found["missing_keys"]:
        raise UnfitBase(f"{path} lacks weights of its own model: {listed(sorted(found['missing_keys']))}.")
    return bits, model, tokenizer


def _bits(path: Path) -> int | None:
    """Of the type that most of the quantised weights have: 4 for Q4_1."""
    from gguf import GGUFReader

    sizes: dict[str, int] = {}
    for tensor in GGUFReader(path).tensors:
        name = tensor.tensor_type.name
        if name not in _FLOATS:
            sizes[name] = sizes.get(name, 0) + int(tensor.n_elements)
    return int(re.search(r"\d+", max(sizes, key=sizes.get))[0]) if sizes else None


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    # Keyed by time and size as well: the cells of a table are composed by one process, and need not read it for each.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
