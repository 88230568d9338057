"""Reading the frozen weight under an adapter, however it is stored."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.utils import resolve_quantization_backend
from peft.utils.integrations import gather_params_ctx
from torch import nn
from transformers.pytorch_utils import Conv1D

FOUR_BIT_BLOCK = 2**21  # entries decoded at a time: 8 MB of float32


def is_quantized(layer: nn.Module) -> bool:
    """Whether PEFT knows the layer as a quantised one."""
    return resolve_quantization_backend(layer) is not None


def is_partitioned(layer: nn.Module) -> bool:
    """Whether DeepSpeed ZeRO-3 keeps the layer's weight in parts, so that reading it takes all processes at once."""
    return any(hasattr(parameter, "ds_id") for parameter in layer.parameters(recurse=False))


@contextmanager
def readable_weight(layer: nn.Module) -> Iterator[torch.Tensor | None]:
    """W (out, in) of a linear layer, detached: a view, or a copy where it has to be dequantised.

    Whole for as long as the context lasts where DeepSpeed ZeRO-3 keeps it in parts. None where its values cannot be
    had: on the meta device (where offloaded weights are too), or in a format that PEFT can run but not decode.
    """
    backend = resolve_quantization_backend(layer)
    with gather_params_ctx(list(layer.parameters(recurse=False)), modifier_rank=None):
        try:
            weight = layer.weight if backend is None else backend.get_base_weight(layer)
        except TypeError:
            weight = None
        if weight is None or weight.is_meta:
            yield None
        else:
            yield (weight.T if isinstance(layer, Conv1D) else weight).detach()


@contextmanager
def readable_rows(layer: nn.Module) -> Iterator["torch.Tensor | FourBitRows | None"]:
    """As `readable_weight`, but a weight in bitsandbytes' 4 bits is decoded block by block, and never whole."""
    weight = getattr(layer, "weight", None)
    if FourBitRows.can_read(weight):
        yield FourBitRows(weight)
    else:
        with readable_weight(layer) as whole:
            yield whole


class FourBitRows:
    """W (out, in) in bitsandbytes' 4 bits, decoded by its `dequantize_4bit` as blocks of rows or as single ones.

    W is stored in the order of its rows, two entries a byte, with one scale for every `blocksize` entries; the scales
    may be quantised themselves (in blocks of 256, and decoded whole here: a sixteenth of a float32 row each).
    """

    def __init__(self, weight: Any):
        import bitsandbytes

        self._functional = bitsandbytes.functional
        # Bytes, whatever type `bnb_4bit_quant_storage` has them stored as: an element of bf16 holds four entries.
        self._packed, self._state = weight.data.flatten().view(torch.uint8), weight.quant_state
        self.shape, self.device = torch.Size(self._state.shape), weight.device
        self._scales = self._state.absmax
        if self._state.nested:
            self._scales = self._functional.dequantize_blockwise(self._scales, self._state.state2) + self._state.offset
        self._scales = self._scales.float()
        # Of so many rows every block of scales belongs to these alone.
        self._step = self._state.blocksize // math.gcd(self.shape[1], self._state.blocksize)

    @staticmethod
    def can_read(weight: Any) -> bool:
        """Whether this is a 4-bit weight in bitsandbytes' own layout, of a matrix (its CPU kernels make another)."""
        state = getattr(weight, "quant_state", None)
        return (
            type(weight).__name__ == "Params4bit"
            and state is not None
            and not weight.is_meta
            and len(state.shape) == 2
            and not getattr(state, "packing_format_for_cpu", False)
        )

    def blocks(self) -> Iterator[torch.Tensor]:
        """W's rows in order, in blocks (rows, in) of some `FOUR_BIT_BLOCK` entries, in the type before quantisation."""
        rows = max(1, FOUR_BIT_BLOCK // (self.shape[1] * self._step)) * self._step
        for start in range(0, self.shape[0], rows):
            yield self._decoded(start, min(start + rows, self.shape[0]))

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows at some indices (n,), (n, in)."""
        found = []
        for row in rows.tolist():
            start = row - row % self._step
            found.append(self._decoded(start, min(start + self._step, self.shape[0]))[row - start])
        return torch.stack(found)

    def _decoded(self, start: int, stop: int) -> torch.Tensor:
        first, last = start * self.shape[1], stop * self.shape[1]
        blocksize = self._state.blocksize
        state = self._functional.QuantState(
            absmax=self._scales[first // blocksize : math.ceil(last / blocksize)].contiguous(),
            # One long row: bitsandbytes 0.50's CPU kernel takes the wrong scales where blocks run over several rows.
            shape=torch.Size((1, last - first)),
            code=self._state.code,
            blocksize=blocksize,
            quant_type=self._state.quant_type,
            dtype=self._state.dtype,
        )
        packed = self._packed[first // 2 : math.ceil(last / 2)].contiguous()
        return self._functional.dequantize_4bit(packed.view(-1, 1), state).view(stop - start, self.shape[1])
