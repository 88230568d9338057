"""Triton kernels of the ID-LoRA layer, where there is a GPU and Triton; elsewhere the layer runs in plain PyTorch."""

import torch

try:
    from idlora.tuners.idlora.kernels import fused
except ModuleNotFoundError as error:  # the CPU builds of PyTorch come without Triton
    if (error.name or "").split(".")[0] != "triton":
        raise
    fused = None

TYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_CLUSTERS = 32
"""Beyond it a tile of the dense router outgrows the shared memory of smaller GPUs."""


def usable(tensor: torch.Tensor) -> bool:
    """Whether the kernels can run on a tensor: on a CUDA device, in a type that they compute in."""
    return fused is not None and tensor.is_cuda and tensor.dtype in TYPES


def suit(tensor: torch.Tensor, router: torch.Tensor | None) -> bool:
    """Whether the kernels do right by this router, given the layer's input.

    T · x_i times x_i is quadratic in the activations, and the kernels keep z in their type: that of float16 overflows.
    """
    if router is None:
        return True
    return len(router) <= MOST_CLUSTERS if router.dim() == 2 else tensor.dtype != torch.float16


__all__ = ["fused", "suit", "usable"]
