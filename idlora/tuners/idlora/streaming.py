"""Working copies: weights brought to a device as float32, a few at a time, grouped by shape.

A weight is read once, when it comes; nothing here looks at it after that. So it may be a tensor that a file lends for a
moment, a ZeRO-3 parameter that is whole for as long as a context lasts, or one that is decoded block by block.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch

BATCH_BYTES = 4 * 2**30  # of working copies at once on an accelerator: some sixty of LLaMA-3-8B's q_proj
BLOCK_BYTES = 64 * 2**20  # of a weight on its way to another device or type
PLAIN_EXPONENTS = range(-50, 51)  # 2^e bounds the largest entry: its square times a row's length stays in float32


class BlockedWeight(Protocol):
    """A weight that is no tensor but can be read, its rows in order, in blocks."""

    shape: torch.Size
    device: torch.device

    def blocks(self) -> Iterator[torch.Tensor]:
        """Tensors (rows, in), one after another; together they are W."""


class Batch(NamedTuple):
    """Working copies of one shape on one device, float32 and contiguous, and whose they are. Read only."""

    names: list[str | None]
    copies: list[torch.Tensor]


class WorkingCopies:
    """Collects weights until there are enough of a shape, within a limit of memory.

    On the CPU every weight makes a batch of its own, for batching gains nothing there, and a float32 weight is its own
    working copy. On an accelerator it waits for others of its shape until `BATCH_BYTES`, or a quarter of the memory
    that is free, are full; then the shape that holds most is handed out.
    """

    def __init__(self, device: torch.device | str | None = None):
        self.device = None if device is None else torch.device(device)
        self.waiting: dict[tuple[torch.Size, torch.device], Batch] = {}

    def add(self, name: str | None, weight: torch.Tensor | BlockedWeight) -> Iterator[Batch]:
        """Takes a copy of a weight (out, in); gives the batches that are to be worked on before the next is added."""
        device = self.device or home_of(weight)
        size, limit = 4 * weight.shape[0] * weight.shape[1], _limit(device)
        if limit == 0:
            yield Batch([name], [working_copy(weight, device, borrow=True)])
            return
        while self.waiting and self._bytes() + size > limit:
            yield self.waiting.pop(max(self.waiting, key=lambda group: _bytes(self.waiting[group])))
        batch = self.waiting.setdefault((weight.shape, device), Batch([], []))
        batch.names.append(name)
        batch.copies.append(working_copy(weight, device))

    def rest(self) -> Iterator[Batch]:
        """The batches that were still waiting for more."""
        while self.waiting:
            yield self.waiting.popitem()[1]

    def _bytes(self) -> int:
        return sum(map(_bytes, self.waiting.values()))


def home_of(weight: torch.Tensor | BlockedWeight) -> torch.device:
    """Where a weight is worked on if no device is named: where it is, but CUDA for one on the CPU if there is any."""
    if weight.device.type == "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return weight.device


def blocks(weight: torch.Tensor | BlockedWeight) -> Iterator[torch.Tensor]:
    """A weight's rows in order, as they are stored: tensors (rows, in) of `BLOCK_BYTES` at most, or of one row."""
    if isinstance(weight, torch.Tensor):
        yield from weight.split(max(1, BLOCK_BYTES // (weight.shape[1] * weight.element_size())))
    else:
        yield from weight.blocks()


def working_copy(weight: torch.Tensor | BlockedWeight, device: torch.device, *, borrow: bool = False) -> torch.Tensor:
    """A weight (out, in) of any floating type as contiguous float32 on a device.

    With `borrow` the weight itself where it is that already: for one who is done with it before its owner goes on.

    float64 is divided by a power of two first, where float32 could not hold it: clusters know no scale.
    """
    if isinstance(weight, torch.Tensor):
        weight = weight.detach()
        if borrow and weight.dtype == torch.float32 and weight.device == device:
            return weight.contiguous()
    double = getattr(weight, "dtype", None) == torch.float64
    factor = _factor(weight.aminmax(), largest=2.0**1000) if double else 1.0
    copy = torch.empty(weight.shape, dtype=torch.float32, device=device)
    start = 0
    for block in blocks(weight):
        # Sent as it is and converted there: half as many bytes on the way for 16 bits.
        block = block.to(device)
        copy[start : start + len(block)] = block if factor == 1 else block * factor
        start += len(block)
    return copy


def scaled(batch: Batch) -> list[torch.Tensor]:
    """The working copies, divided by powers of two where squares would leave float32: a change of no digit.

    Raises ValueError if entries are not finite, with the name where there is one.
    """
    extremes = torch.stack([torch.stack(copy.aminmax()) for copy in batch.copies]).cpu()
    copies = []
    for name, copy, (low, high) in zip(batch.names, batch.copies, extremes, strict=True):
        if not (low.isfinite() and high.isfinite()):
            count = int((~torch.isfinite(copy)).sum())
            where = "" if name is None else f"no pivots for {name}: "
            raise ValueError(f"{where}{count} of the weight's entries are not finite")
        factor = _factor((low, high))
        copies.append(copy if factor == 1 else copy * factor)
    return copies


def _factor(extremes: Sequence[torch.Tensor], largest: float = 2.0**126) -> float:
    """1, or the power of two, `largest` at most, that brings entries between these extremes to about 1."""
    exponent = int(torch.frexp(torch.stack(list(extremes)).abs().max().cpu()).exponent)
    return 1.0 if exponent in PLAIN_EXPONENTS else min(2.0 ** -max(exponent, -1000), largest)


def _bytes(batch: Batch) -> int:
    return sum(copy.numel() * copy.element_size() for copy in batch.copies)


def _limit(device: torch.device) -> int:
    """Bytes of working copies that may wait for others; 0 where none shall."""
    if device.type == "cpu":
        return 0
    if device.type != "cuda":
        return BATCH_BYTES
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # ours to use again
    return min(BATCH_BYTES, (torch.cuda.mem_get_info(device)[0] + idle) // 4)
