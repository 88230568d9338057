"""Pivots are selected once for a base: they are kept on disk and found again by the content of its weights.

checksums of all weights + settings  ->  <cache folder>/pivots/<key>.safetensors
    pivots (n, k, r) int32, of the n weights in their order      sizes (n, k) int64, where there were clusters
    metadata: the key, the seconds that the selection took, and a SHA-256 of all of it
"""

import contextlib
import hashlib
import json
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from huggingface_hub.constants import HF_HOME

from idlora.tuners.idlora.clustering import Selection, select_pivots_many
from idlora.tuners.idlora.streaming import BlockedWeight, blocks, home_of

SELECTION_VERSION = 1
"""To be raised with every change of the code that gives other pivots for the same weights and settings."""

PIECE_BYTES = {"cpu": 2**18}
"""Of a weight, multiplied at a time for its checksum: what stays in a CPU's cache; elsewhere the block that came."""

LEFT_BEHIND_SECONDS = 24 * 3600
"""So old a temporary file is a dead writer's: writing one takes less than a second."""

Named = Iterable[tuple[str, torch.Tensor | BlockedWeight]]


class Chosen(NamedTuple):
    """Selections by module, the seconds that they took when they were made, and whether they came from the cache."""

    selections: dict[str, Selection]
    seconds: float
    cached: bool


def select_once(
    weights: Callable[[], Named],
    num_clusters: int,
    r: int,
    *,
    method: str,
    seed: int,
    n_init: int,
    max_iter: int,
    backend: str,
    gathered: bool = False,
) -> Chosen:
    """`select_pivots_many`, or what it gave when the same weights were selected from with the same settings before.

    Every process works for itself: it reads the file, or selects and writes it. Nothing is sent between processes, so
    one rank alone may call this, and all may at once: equal weights and settings give equal pivots on devices of one
    kind, and a file is replaced whole by another of the same content.

    Args:
        weights: gives the names and weights, afresh at each call: once for their checksums, and once more to select.
        gathered: whether reading a weight takes all processes (DeepSpeed ZeRO-3). Then all must call this at once, with
            the cache on in all or in none. Each reads every weight twice, even if it finds its pivots on disk: another
            one, with another disk, may not, and would wait for it.
        The others are `select_pivots_many`'s.

    Raises ValueError as `select_pivots_many`. A file that is damaged or of another kind, or a folder that cannot be
    written, is warned of once, and the pivots are selected anew.

    Leaves out deleting old files: one of LLaMA-3-8B's has half a megabyte.
    """
    settings = {"method": method, "seed": seed, "n_init": n_init, "max_iter": max_iter, "backend": backend}
    sizes = {"num_clusters": num_clusters, "r": r}
    folder = _folder()
    file = None
    if folder is not None:
        marks = {name: [checksum(weight), home_of(weight).type] for name, weight in weights()}
        key = {"version": SELECTION_VERSION, "weights": list(marks.values())} | settings | sizes
        file = folder / f"{_sha256(json.dumps(key).encode())}.safetensors"
        found = _read(file, list(marks), (num_clusters, r))
        if found is not None:
            for _ in weights() if gathered else ():
                pass
            return found
    start = time.perf_counter()
    selections = select_pivots_many(weights(), num_clusters, r, **settings)
    chosen = Chosen(selections, time.perf_counter() - start, cached=False)
    if file is not None and selections:
        _write(file, chosen)
    return chosen


def checksum(weight: torch.Tensor | BlockedWeight) -> str:
    """SHA-256 of a sketch of a weight (out, in): one number a row, of the bits of its entries and their places.

    The bits of a row are read as integers of 32 bits (fewer where they do not come out even); the number is the sum of
    their products with fixed odd ones, modulo 2^64, in which no single change can hide, and several with a probability
    of 2^-33 a row. That takes one pass where the weight is worked on, block by block, and is exact: every device gives
    the same. It guards against mistakes, not against an adversary.
    """
    device = home_of(weight)
    sums, dtype = [], None
    for block in blocks(weight):
        block = block.detach().to(device)
        dtype, row_bytes = block.dtype, block.shape[1] * block.element_size()
        words = next(kind for kind in (torch.int32, torch.int16, torch.int8) if row_bytes % kind.itemsize == 0)
        factors = _factors(row_bytes // words.itemsize, device)
        rows = max(1, PIECE_BYTES.get(device.type, row_bytes * len(block)) // row_bytes)
        sums += [(piece.contiguous().view(words) * factors).sum(dim=1) for piece in block.split(rows)]
    sketch = torch.cat(sums).cpu().numpy().astype("<i8")
    return _sha256(f"{dtype} {tuple(weight.shape)} ".encode() + sketch.tobytes())


def _folder() -> Path | None:
    """$IDLORA_CACHE/pivots, else $HF_HOME/idlora/pivots; None, no cache, where IDLORA_CACHE is empty."""
    named = os.environ.get("IDLORA_CACHE")
    if named == "":
        return None
    return Path(named or Path(HF_HOME) / "idlora").expanduser() / "pivots"


def _factors(count: int, device: torch.device) -> torch.Tensor:
    drawn = torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(0), device="cpu")
    return (2 * drawn + 1).to(device)


def _read(file: Path, names: list[str], shape: tuple[int, int]) -> Chosen | None:
    """What the file holds for the weights of these names, k and r being `shape`; None where it cannot be had."""
    try:
        with safetensors.safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        if metadata.pop("sha256", None) != _seal(tensors, metadata) or metadata["key"] != file.stem:
            raise ValueError("its content is not what was written")
        pivots, sizes = tensors["pivots"], tensors.get("sizes")
        if pivots.shape != (len(names), *shape):
            raise ValueError(f"it holds {tuple(pivots.shape)} pivots")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        warnings.warn(f"the cached pivots {file} are not used, and selected anew ({_reason(error)})", stacklevel=2)
        return None
    each_size = [None] * len(names) if sizes is None else map(tuple, sizes.tolist())
    selections = {name: Selection(one.clone(), size) for name, one, size in zip(names, pivots, each_size, strict=True)}
    return Chosen(selections, float(metadata["seconds"]), cached=True)


def _write(file: Path, chosen: Chosen) -> None:
    found = list(chosen.selections.values())
    tensors = {"pivots": torch.stack([selection.pivots for selection in found])}
    if all(selection.sizes is not None for selection in found):
        tensors["sizes"] = torch.tensor([selection.sizes for selection in found])
    metadata = {"key": file.stem, "seconds": repr(chosen.seconds)}
    metadata["sha256"] = _seal(tensors, metadata)
    try:
        _replace(file, safetensors.torch.save(tensors, metadata))
    except OSError as error:
        warnings.warn(f"the selected pivots could not be kept in {file.parent} ({_reason(error)})", stacklevel=2)


def _replace(file: Path, content: bytes) -> None:
    """Write a file that other processes see whole or not at all, and remove what writers that died left beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob("*.tmp"):
        with contextlib.suppress(OSError):  # another process was quicker, or it is another user's
            if time.time() - left.stat().st_mtime > LEFT_BEHIND_SECONDS:
                left.unlink()
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as written:
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _seal(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    parts = [json.dumps(metadata, sort_keys=True).encode()]
    for name, tensor in sorted(tensors.items()):
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode(), tensor.numpy().tobytes()]
    return _sha256(b"".join(parts))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
