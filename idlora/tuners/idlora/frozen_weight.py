"""Access to the frozen weight under an adapter: dense, quantised, offloaded, or partitioned by DeepSpeed ZeRO-3."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from peft.utils import resolve_quantization_backend
from peft.utils.integrations import gather_params_ctx
from peft.utils.quantization_utils import QuantizationBackend
from torch import nn
from transformers.pytorch_utils import Conv1D

from idlora.tuners.common import loaded


def is_quantized(layer: nn.Module) -> bool:
    """Return whether PEFT treats the layer as quantised."""
    return resolve_quantization_backend(layer) is not None


def is_partitioned(layer: nn.Module) -> bool:
    """Return whether DeepSpeed ZeRO-3 partitions the layer's weight, so that all processes must read it together."""
    return any(hasattr(parameter, "ds_id") for parameter in layer.parameters(recurse=False))


@contextmanager
def readable_weight(layer: nn.Module) -> Iterator[torch.Tensor | None]:
    """Yield W (out, in) of a linear layer, detached: a view, or a copy if it is dequantised.

    A weight that DeepSpeed ZeRO-3 partitions, or accelerate offloads, is there within the context only. The value is
    None if the weight cannot be read: on the meta device, or in a format that PEFT can run but not decode.
    """
    backend = resolve_quantization_backend(layer)
    gathered = nullcontext()
    if is_partitioned(layer):
        gathered = gather_params_ctx(list(layer.parameters(recurse=False)), modifier_rank=None)
    with gathered, loaded(layer):
        try:
            weight = dense_weight(layer) if backend is None else _decoded(layer, backend).detach()
        except TypeError:
            weight = None
        yield None if weight is None or weight.is_meta else weight


def _decoded(layer: nn.Module, backend: QuantizationBackend) -> torch.Tensor:
    """Return W (out, in) of a quantised layer, a copy."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)  # other formats have no `weight`
    if not getattr(state, "packing_format_for_cpu", False):
        return backend.get_base_weight(layer)
    # Inference on some CPUs has bitsandbytes keep the 4 bits in another order, which PEFT would read as if it were not.
    from bitsandbytes import functional as four_bits

    return four_bits.dequantize_4bit(
        *four_bits._convert_weight_packed_for_cpu_inverse(layer.weight.data, copy.copy(state))
    )


def dense_weight(layer: nn.Module) -> torch.Tensor:
    """Return W (out, in) of a linear layer that is not quantised, a detached view."""
    return (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).detach()


@contextmanager
def hidden_bias(layer: nn.Module) -> Iterator[None]:
    """Make a linear layer compute W h, without its bias, within the context."""
    bias, layer.bias = layer.bias, None
    try:
        yield
    finally:
        layer.bias = bias
