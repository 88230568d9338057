"""Reading the frozen weight under an adapter, however it is stored."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.utils import resolve_quantization_backend
from peft.utils.integrations import gather_params_ctx
from torch import nn
from transformers.pytorch_utils import Conv1D


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
