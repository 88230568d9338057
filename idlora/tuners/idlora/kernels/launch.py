"""Shapes, buffers and launches of the kernels; `ops` documents the arguments.

`launcher` wraps a kernel before its launch, as torch.compile requires.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import triton

from idlora.tuners.idlora.kernels.mixing import apply_kernel, few_tokens_kernel, mix_kernel, unmix_kernel
from idlora.tuners.idlora.kernels.routing import few_logits_kernel, logits_backward_kernel, logits_kernel

Launcher = Callable[[Any], Any]

FEW_TOKENS = 32
"""Largest number of tokens for the forward in one launch, where each token and tile of columns recomputes α and z."""

PARTS = 768
"""Programs of a sum over rows, about six per multiprocessor; their partial sums are added afterwards."""


def _tile(size: int, least: int = 1) -> int:
    """Return the side of a tile for `size` entries; Triton's matrix products need `least` = 16."""
    return max(least, triton.next_power_of_2(size))


def _precision(dtype: torch.dtype) -> str:
    """Return the input precision of products: full for float32; half precision does not need it."""
    return "ieee" if dtype == torch.float32 else "tf32"


def _mixing(pivots: torch.Tensor, mask: torch.Tensor | None, router: str) -> dict[str, Any]:
    """Return constants of the two kernels with one row per program; they are memory-bound, so few warps suffice."""
    k, r = pivots.shape
    slots = _tile(k * r)
    return {
        "K": k, "R": r, "ROUTER": router, "HAS_MASK": mask is not None, "BLOCK_M": 1, "SLOTS": slots,
        "CLUSTERS": _tile(k), "RANK": _tile(r), "num_warps": min(8, max(1, slots // 512)),
    }  # fmt: skip


def adapt(base, pivots, order, *, x, B, bias, route, mask, router, scale, saves, launcher: Launcher):
    """Compute y, x (the given one, if any), α and c z; see `ops.adapt`."""
    M, N = base.shape
    k, r = pivots.shape
    NS, RS = B.shape
    apart = x is not None
    out, z = torch.empty_like(base), base.new_empty(M, r)
    x = x if apart else base.new_empty(M, k, r)
    alpha = base.new_empty(M, k, dtype=torch.float32)
    if M:
        launcher(mix_kernel)[(M,)](
            base, bias, route, mask, pivots, order, x, alpha, z, scale, M,
            N=N, HAS_BIAS=bias is not None, SAVES=saves, APART=apart, **_mixing(pivots, mask, router),
        )  # fmt: skip
        rows = base.numel() // NS
        launcher(apply_kernel)[(triton.cdiv(NS, 128), triton.cdiv(rows, 64))](
            base, z, B, out, rows,
            NS=NS, RS=RS, PRECISION=_precision(base.dtype),
            BLOCK_M=64, BLOCK_N=128, CHUNK=_tile(RS, 16), num_warps=8 if base.element_size() == 2 else 4,
        )  # fmt: skip
    return out, x, alpha, z


def adapt_backward(dx, dy, *, x, alpha, z, pivots, order, B, T, mask, apart, router, scale, launcher: Launcher):
    """Write dx and return dB and droute; see `ops.adapt_backward`."""
    M = len(dy)
    k, r = pivots.shape
    # The chunks of a row are contiguous, so M rows of s chunks are M·s rows of one chunk.
    chunks = dy.view(-1, B.shape[0])
    dB = chunks.T @ z.view(-1, B.shape[1])
    dz = chunks @ B.to(dy.dtype)
    droute = dy.new_empty(0 if router == "uniform" else M, k, dtype=torch.float32)
    dT = dy.new_empty(M if router == "inner_product" else 0, r, dtype=torch.float32)
    if M:
        launcher(unmix_kernel)[(M,)](
            dx, x, alpha, dz, T, mask, pivots, order, droute, dT, scale, M,
            N=dx.numel() // M, APART=apart, **_mixing(pivots, mask, router),
        )  # fmt: skip
    return dB, dT.sum(0) if router == "inner_product" else droute


def on_device(tensor: torch.Tensor) -> AbstractContextManager:
    """Return a context on the tensor's device: Triton launches on the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@cache
def _overlaps(device: torch.device) -> bool:
    """Return whether the device supports programmatic dependent launch: a kernel starts before its predecessor ends."""
    try:
        from triton.backends.nvidia.compiler import CUDAOptions
    except ImportError:
        return False
    hopper = device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)
    return hopper and hasattr(CUDAOptions, "launch_pdl")


def adapt_few(base, pivots, B, *, x, bias, route, router, scale) -> torch.Tensor:
    """Compute y (M, out) of few tokens in one launch; see `ops.adapt_few`."""
    M, N = base.shape
    k, r = pivots.shape
    NS, RS = B.shape
    out = torch.empty_like(base)
    columns, warps = (32, 4) if M == 1 else (64, 1)
    overlaps = _overlaps(base.device)
    if M:
        with on_device(base):
            few_tokens_kernel[(M, (N // NS) * triton.cdiv(NS, columns))](
                base, x, bias, B, route, pivots, out, scale,
                N=N, K=k, R=r, S=N // NS, ROUTER=router, HAS_BIAS=bias is not None, OVERLAPS=overlaps,
                APART=x is not None,
                BLOCK_N=columns, CLUSTERS=_tile(k), RANK=_tile(r), CHUNK=_tile(RS), num_warps=warps,
                **({"launch_pdl": True} if overlaps else {}),
            )  # fmt: skip
    return out


def logits(h: torch.Tensor, T: torch.Tensor, *, launcher: Launcher) -> torch.Tensor:
    """Compute T h (M, k) in float32 from h (M, in), contiguous, and T (k, in)."""
    M, features = h.shape
    k = len(T)
    out = h.new_empty(M, k, dtype=torch.float32)
    if 0 < M <= FEW_TOKENS:
        launcher(few_logits_kernel)[(M, k)](
            h, T, out, IN=features, K=k, BLOCK_IN=min(4096, _tile(features)), num_warps=8
        )
    elif M:
        launcher(logits_kernel)[(triton.cdiv(M, 32),)](
            h, T, out, M, IN=features, K=k, PRECISION=_precision(h.dtype), TWO=h.element_size() < T.element_size(),
            BLOCK_M=32, BLOCK_IN=128, CLUSTERS=_tile(k, 16),
            num_warps=4, num_stages=5 if h.element_size() < 4 else 2,
        )  # fmt: skip
    return out


def logits_backward(dlogits, h, T, *, with_dh: bool, launcher: Launcher) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Compute dh (M, in) in h's type (None without `with_dh`) and dT (k, in), from dlogits (M, k), both float32."""
    M, features = h.shape
    dh = torch.empty_like(h) if with_dh else None
    steps = max(1, triton.cdiv(triton.cdiv(M, 64) * triton.cdiv(features, 128), PARTS))
    parts = triton.cdiv(M, 64 * steps)
    dT = h.new_empty(parts, len(T), features, dtype=torch.float32)
    if M:
        launcher(logits_backward_kernel)[(triton.cdiv(features, 128), parts)](
            h, T, dlogits, dT, dh, M, steps, IN=features, K=len(T), PRECISION=_precision(h.dtype),
            TWO=h.element_size() < 4, WITH_DH=with_dh, BLOCK_M=64, BLOCK_IN=128, CLUSTERS=_tile(len(T), 16),
            num_warps=8, num_stages=3 if h.element_size() < 4 else 2,
        )  # fmt: skip
    return dh, dT.sum(0)
