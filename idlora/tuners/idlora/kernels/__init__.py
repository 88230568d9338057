"""Triton kernels of the ID-LoRA layer, where there is a GPU and Triton; elsewhere the layer runs in plain PyTorch."""

import torch

from idlora.tuners.idlora.kernels.limits import TYPES, support

try:
    from idlora.tuners.idlora.kernels import fused
except ModuleNotFoundError as error:  # the CPU builds of PyTorch come without Triton
    if (error.name or "").split(".")[0] != "triton":
        raise
    fused = None


def usable(tensor: torch.Tensor) -> bool:
    """Whether the kernels can run on a tensor: on a CUDA device, in a type that they compute in."""
    return fused is not None and tensor.is_cuda and tensor.dtype in TYPES


__all__ = ["fused", "support", "usable"]
