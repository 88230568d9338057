"""Limits on the inputs of the kernels. Does not import Triton."""

import torch

TYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_CLUSTERS = 32
"""Largest k: a larger tile of the dense router exceeds the shared memory of smaller GPUs."""

MOST_CHUNKS = 64 * 65535
"""Largest number of chunks of all tokens, in tiles of 64: CUDA's limit on the second dimension of a grid."""


def entry_type(h: torch.Tensor) -> torch.dtype:
    """Return the dtype in which h enters the base layer: its own, or autocast's."""
    kind = h.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h.dtype


def support(h: torch.Tensor, router: torch.Tensor | None, chunks: int) -> bool:
    """Return whether the kernels support this input h (..., in), this router, and s chunks a token.

    T · x_i times x_i is quadratic in the activations, and the kernels store z in their type: float16 overflows.
    """
    if h.numel() // h.shape[-1] * chunks > MOST_CHUNKS:
        return False
    if router is None:
        return True
    return len(router) <= MOST_CLUSTERS if router.dim() == 2 else entry_type(h) != torch.float16
