"""Cache of selected pivots on disk, keyed by the content of the base's weights and the settings.

checksums of all weights + settings  ->  <cache folder>/pivots/<key>.safetensors
    pivots (n, k, r) int32, of the n weights in their order      sizes (n, k) int64, where there were clusters
    metadata: the key, the seconds that the selection took, and a SHA-256 of all of it
"""

import contextlib
import hashlib
import json
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from huggingface_hub.constants import HF_HOME
from huggingface_hub.utils import tqdm

from idlora.tuners.idlora.clustering import PivotSelector, Selection, work_device

SELECTION_VERSION = 1
"""Version of the selection code. Raise it with every change that gives other pivots for the same input."""

PIECE_BYTES = {"cpu": 2**18, "cuda": 2**26}
"""Bytes of a weight per step of its checksum, by device type; a piece fits into a CPU's cache."""

PROGRESS_DELAY, PROGRESS_INTERVAL = 5, 10
"""Seconds until the first line of progress, and between two lines in a file."""


class CachedSelections(NamedTuple):
    """Selections by module, the seconds of the original selection, and whether they come from the cache."""

    selections: dict[str, Selection]
    seconds: float
    cached: bool


def select_cached(
    weights: Callable[[], Iterable[tuple[str, torch.Tensor]]],
    selector: PivotSelector,
    *,
    gathered: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> CachedSelections:
    """Select the pivots of every weight, or read them from the cache for the same weights and settings.

    Processes do not communicate, so one rank or all ranks may call this: equal weights and settings give equal pivots
    on devices of one kind, and files are replaced atomically. A damaged file or an unwritable folder causes a warning.

    Args:
        weights: returns an iterator of names and weights (out, in), one at a time, at each call.
        selector: the settings.
        gathered: whether all processes must read a weight together (DeepSpeed ZeRO-3). All must then call this, with
            the cache on in all or in none. Each reads every weight twice, since one with another disk may need to.
        advance: called with the number of weights done since its last call.

    Raises:
        ValueError: as `select_pivots`, with the name of the module.
    """
    folder, file = _folder(), None
    if folder is not None:
        checksums = {name: [checksum(weight), work_device(weight).type] for name, weight in weights()}
        key = {"version": SELECTION_VERSION, "weights": list(checksums.values())} | asdict(selector)
        file = folder / f"{_sha256(json.dumps(key).encode())}.safetensors"
        cached = _read(file, list(checksums), (selector.num_clusters, selector.r))
        if cached is not None:
            for _ in weights() if gathered else ():
                pass
            advance(len(cached.selections))
            return cached
    start, selections = time.perf_counter(), {}
    for name, weight in weights():
        try:
            selections[name] = selector.select(weight)
        except ValueError as error:
            raise ValueError(f"no pivots for {name}: {error}") from error
        advance(1)
    result = CachedSelections(selections, time.perf_counter() - start, cached=False)
    if file is not None and selections:
        _write(file, result)
    return result


def selection_progress(total: int) -> tqdm:
    """Return a progress bar, a context manager, that appears on stderr if selecting takes more than 5 seconds.

    It is one line: in place on a terminal, anew every 10 seconds elsewhere. Only rank 0 shows it, and it is off where
    the bars of transformers are (`disable_progress_bar()`, or HF_HUB_DISABLE_PROGRESS_BARS=1).
    """
    in_group = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if in_group else int(os.environ.get("RANK", 0))  # a launcher sets RANK first
    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        bar_format="selecting pivots: {n} of {total} modules, {elapsed_s:.0f} s, about {remaining_s:.0f} s left",
        delay=PROGRESS_DELAY,
        mininterval=0.1 if on_terminal else PROGRESS_INTERVAL,
        miniters=1,
        smoothing=0,  # the mean of all modules: their sizes differ
        file=sys.stderr if on_terminal else _Lines(),
        disable=rank != 0,
    )


class _Lines:
    """A file for tqdm that turns each update of its line into a line of stderr."""

    def write(self, text: str) -> None:
        if text := text.strip():
            print(text, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def checksum(weight: torch.Tensor) -> str:
    """Compute the SHA-256 of a sketch of a weight (out, in): one number a row, from its entries' bits and positions.

    A row's bits are read as integers of 32 bits (fewer if its bytes do not divide). The number is the sum of their
    products with fixed odd integers, modulo 2^64. It detects every single change; several changes cancel with
    probability 2^-33 a row. It takes one pass on the work device, and every device gives the same result. It guards
    against mistakes, not against an adversary.
    """
    device = work_device(weight)
    row_bytes = weight.shape[1] * weight.element_size()
    words = next(kind for kind in (torch.int32, torch.int16, torch.int8) if row_bytes % kind.itemsize == 0)
    count, generator = row_bytes // words.itemsize, torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (count,), generator=generator, device="cpu")
    factors = (2 * factors + 1).to(device)
    pieces = weight.detach().to(device).split(max(1, PIECE_BYTES.get(device.type, 2**26) // row_bytes))
    sums = torch.cat([(piece.contiguous().view(words) * factors).sum(dim=1) for piece in pieces])
    content = sums.cpu().numpy().astype("<i8").tobytes()
    return _sha256(f"{weight.dtype} {tuple(weight.shape)} ".encode() + content)


def _folder() -> Path | None:
    """Return $IDLORA_CACHE/pivots, else $HF_HOME/idlora/pivots; None (no cache) if IDLORA_CACHE is empty."""
    root = os.environ.get("IDLORA_CACHE")
    if root == "":
        return None
    return Path(root or Path(HF_HOME) / "idlora").expanduser() / "pivots"


def _read(file: Path, names: list[str], shape: tuple[int, int]) -> CachedSelections | None:
    """Read a file for the weights of these names, `shape` being (k, r); return None if there is no usable file."""
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
        warnings.warn(f"the cached pivots {file} are not used, and selected anew: {error}", stacklevel=2)
        return None
    each_size = [None] * len(names) if sizes is None else map(tuple, sizes.tolist())
    selections = {name: Selection(one.clone(), size) for name, one, size in zip(names, pivots, each_size, strict=True)}
    return CachedSelections(selections, float(metadata["seconds"]), cached=True)


def _write(file: Path, result: CachedSelections) -> None:
    """Write a file atomically."""
    selections = list(result.selections.values())
    tensors = {"pivots": torch.stack([selection.pivots for selection in selections])}
    if all(selection.sizes is not None for selection in selections):
        tensors["sizes"] = torch.tensor([selection.sizes for selection in selections])
    metadata = {"key": file.stem, "seconds": repr(result.seconds)}
    metadata["sha256"] = _seal(tensors, metadata)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))
        os.replace(temporary, file)
    except OSError as error:
        warnings.warn(f"the selected pivots could not be kept in {file.parent}: {error}", stacklevel=2)
    finally:  # after an interrupt too
        with contextlib.suppress(OSError):
            temporary.unlink()


def _seal(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    parts = [json.dumps(metadata, sort_keys=True).encode()]
    for name, tensor in sorted(tensors.items()):
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode(), tensor.numpy().tobytes()]
    return _sha256(b"".join(parts))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
