"""Triton kernels of the ID-LoRA layer. Without a GPU or Triton the layer runs in plain PyTorch."""

import torch

from idlora.tuners.idlora.kernels.limits import TYPES, support

try:
    from idlora.tuners.idlora.kernels import fused
except ModuleNotFoundError as error:  # CPU builds of PyTorch do not include Triton
    if (error.name or "").split(".")[0] != "triton":
        raise
    fused = None


def usable(tensor: torch.Tensor) -> bool:
    """Return whether the kernels can run on a tensor: it is on a CUDA device and of a supported dtype."""
    return fused is not None and tensor.is_cuda and tensor.dtype in TYPES


__all__ = ["fused", "support", "usable"]
