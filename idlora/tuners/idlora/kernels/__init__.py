"""Triton kernels of the ID-LoRA layer, where there is a GPU and Triton; elsewhere the layer runs in plain PyTorch."""

import torch

TYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_CLUSTERS = 32
"""Beyond it a tile of the dense router outgrows the shared memory of smaller GPUs."""

MOST_CHUNKS = 64 * 65535
"""Of tokens, in tiles of 64: CUDA's limit on the second side of a grid."""


def usable(tensor: torch.Tensor) -> bool:
    """Whether the kernels can run on a tensor: on a CUDA device, in a type that they compute in."""
    return fused is not None and tensor.is_cuda and tensor.dtype in TYPES


def entry_type(h: torch.Tensor) -> torch.dtype:
    """The type in which h enters the base layer: its own, or autocast's."""
    kind = h.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h.dtype


def suit(h: torch.Tensor, router: torch.Tensor | None, chunks: int) -> bool:
    """Whether the kernels do right by this input h (..., in), this router, and s chunks a token.

    T · x_i times x_i is quadratic in the activations, and the kernels keep z in their type: that of float16 overflows.
    """
    if h.numel() // h.shape[-1] * chunks > MOST_CHUNKS:
        return False
    if router is None:
        return True
    return len(router) <= MOST_CLUSTERS if router.dim() == 2 else entry_type(h) != torch.float16


try:
    from idlora.tuners.idlora.kernels import fused
except ModuleNotFoundError as error:  # the CPU builds of PyTorch come without Triton
    if (error.name or "").split(".")[0] != "triton":
        raise
    fused = None

__all__ = ["entry_type", "fused", "suit", "usable"]
