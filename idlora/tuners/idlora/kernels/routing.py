"""The dense router in Triton: logits = T h and its backward, each in one pass over h.

    logits  = h Tᵀ            (M, k)     h (M, in), T (k, in)
    dT      = dlogitsᵀ h      (k, in)
    dh      = dlogits T       (M, in)

k is small, so reading h and writing dh dominate. h enters the products in its own type. The other factor, in float32,
would lose precision in h's type: it enters as two numbers of that type, its rounded value and the remainder.
"""

import triton
import triton.language as tl


@triton.jit
def _dot_in_two(a, b, total, TWO: tl.constexpr, PRECISION: tl.constexpr):
    """Return total + a b, for a in half precision and b in float32, or for a and b in float32."""
    high = b.to(a.dtype)
    total = tl.dot(a, high, total, input_precision=PRECISION)
    if TWO:
        total = tl.dot(a, (b - high.to(tl.float32)).to(a.dtype), total, input_precision=PRECISION)
    return total


@triton.jit
def logits_kernel(
    h, T, logits, M,
    IN: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr, TWO: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_IN: tl.constexpr, CLUSTERS: tl.constexpr,
):  # fmt: skip
    """Compute logits (M, k) in float32; one program computes BLOCK_M rows."""
    start = tl.program_id(0).to(tl.int64) * BLOCK_M
    row = tl.arange(0, BLOCK_M)[:, None]
    cluster = tl.arange(0, CLUSTERS)[None, :]
    total = tl.zeros((BLOCK_M, CLUSTERS), dtype=tl.float32)
    for first in range(0, IN, BLOCK_IN):
        f = first + tl.arange(0, BLOCK_IN)
        h_f = tl.load(h + (start + row) * IN + f[None, :], mask=(start + row < M) & (f[None, :] < IN), other=0.0)
        T_f = tl.load(T + cluster * IN + f[:, None], mask=(cluster < K) & (f[:, None] < IN), other=0.0)
        if TWO:
            total = _dot_in_two(h_f, T_f.to(tl.float32), total, TWO, PRECISION)
        else:
            total = tl.dot(h_f, T_f.to(h_f.dtype), total, input_precision=PRECISION)
    tl.store(logits + (start + row) * K + cluster, total, mask=(start + row < M) & (cluster < K))


@triton.jit
def few_logits_kernel(h, T, logits, IN: tl.constexpr, K: tl.constexpr, BLOCK_IN: tl.constexpr):
    """Compute one logit of one token, for decoding."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.arange(0, BLOCK_IN)
    total = tl.zeros((BLOCK_IN,), dtype=tl.float32)
    for first in tl.static_range(0, IN, BLOCK_IN):
        h_f = tl.load(h + row * IN + first + f, mask=first + f < IN, other=0.0).to(tl.float32)
        total += h_f * tl.load(T + tl.program_id(1) * IN + first + f, mask=first + f < IN, other=0.0).to(tl.float32)
    tl.store(logits + row * K + tl.program_id(1), tl.sum(total, axis=0))


@triton.jit
def logits_backward_kernel(
    h, T, dlogits, dT, dh, M, STEPS,
    IN: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr, TWO: tl.constexpr, WITH_DH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_IN: tl.constexpr, CLUSTERS: tl.constexpr,
):  # fmt: skip
    """Compute one part of dT for every STEPS blocks of rows, in dT (parts, k, in), and dh (M, in) if WITH_DH."""
    f = tl.program_id(0) * BLOCK_IN + tl.arange(0, BLOCK_IN)
    cluster = tl.arange(0, CLUSTERS)
    inside = (cluster[:, None] < K) & (f[None, :] < IN)
    if WITH_DH:
        T_f = tl.load(T + cluster[:, None] * IN + f[None, :], mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_IN, CLUSTERS), dtype=tl.float32)
    for step in range(STEPS):
        rows = (tl.program_id(1) * STEPS + step) * BLOCK_M + tl.arange(0, BLOCK_M)
        row = rows.to(tl.int64)[:, None]
        exists = rows[:, None] < M
        place = row * IN + f[None, :]
        d = tl.load(dlogits + row * K + cluster[None, :], mask=exists & (cluster[None, :] < K), other=0.0)
        h_f = tl.load(h + place, mask=exists & (f[None, :] < IN), other=0.0)
        total = _dot_in_two(tl.trans(h_f), d, total, TWO, PRECISION)
        if WITH_DH:
            dh_f = tl.dot(d, T_f, input_precision="tf32" if TWO else "ieee")
            tl.store(dh + place, dh_f.to(dh.dtype.element_ty), mask=exists & (f[None, :] < IN))
    tl.store(dT + (tl.program_id(1) * K + cluster[None, :]) * IN + f[:, None], total, mask=tl.trans(inside))
