"""The update of Eq. 3 and 4 in Triton: forward, backward, and the forward of a few tokens.

    x_i = y0[:, S_i] - b[S_i]           (M, r)    y0 = W h + b (M, N), the base layer's output for M tokens
    z   = mask ⊙ Σ_i α_i x_i            (M, r)    α (M, k), from the router
    y   = y0 + c [z^1 Bᵀ, …, z^s Bᵀ]    (M, N)    B (N/s, r/s), c the scale

and backward, from dy (M, N):

    dz^j = c mask^j ⊙ (dy^j B)                    dα_i = dz · x_i       dx_i = α_i dz  (+ dα_i T: α_i = T · x_i)
    dy0  = dy,  dy0[:, S_i] += dx_i               dB = c Σ_j (dy^j)ᵀ z^j

With APART the x_i are given, not gathered from y0, and dx_i is a tensor of its own.

All kernels are memory-bound. `mix_kernel` and `unmix_kernel` access k·r columns of every row. A program of theirs
processes whole rows, so that no two programs write to the same address, and only one, since it mostly waits for memory.
`apply_kernel` processes all of y0 in tiles. PyTorch computes the two products with dy.

Pivot columns are visited in ascending order, so that neighbours share a cache line. `order` (2, k·r), a permutation of
the pivots and its inverse, is a hint: any permutation gives the same result.
"""

import triton
import triton.language as tl


@triton.jit
def _pivot_values(base, bias, row, row_exists, column, exists, N, HAS_BIAS: tl.constexpr):
    """Return (y0 - b)[row, column] in float32; NaN for a pivot that is not a column."""
    inside = exists & (column >= 0) & (column < N)
    value = tl.load(base + row * N + column, mask=row_exists & inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        value -= tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    return tl.where(exists & (inside == 0), float("nan"), value)


@triton.jit
def mix_kernel(
    base, bias, route, mask, pivots, order, x, alpha, z, scale, M,
    N: tl.constexpr, K: tl.constexpr, R: tl.constexpr, ROUTER: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, SAVES: tl.constexpr, APART: tl.constexpr,
    BLOCK_M: tl.constexpr, SLOTS: tl.constexpr, CLUSTERS: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """Compute c z (M, r), with x (M, k, r) as work space (APART: as input) and, if SAVES, x and α (M, k) for backward.

    `route` holds the logits (M, k) of the dense router, or T (r,) of the inner product.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK_M
    row = tl.arange(0, BLOCK_M)[:, None]
    base += start * N
    x += start * (K * R)

    row3 = tl.arange(0, BLOCK_M)[:, None, None]
    i3 = tl.arange(0, CLUSTERS)[None, :, None]
    c3 = tl.arange(0, RANK)[None, None, :]
    exists = (start + row3 < M) & (i3 < K) & (c3 < R)
    if APART:
        x_ic = tl.load(x + row3 * (K * R) + i3 * R + c3, mask=exists, other=0.0)
    else:
        # Gather and write in row order, then read in cluster order: out-of-order access is cheap only within x, which
        # takes a cache line or two.
        q = tl.arange(0, SLOTS)[None, :]
        column = tl.load(pivots + tl.load(order + q, mask=q < K * R, other=0), mask=q < K * R, other=0)
        place = tl.load(order + K * R + i3 * R + c3, mask=(i3 < K) & (c3 < R), other=0)
        value = _pivot_values(base, bias, row, start + row < M, column, q < K * R, N, HAS_BIAS)
        tl.store(x + row * (K * R) + q, value.to(x.dtype.element_ty), mask=(start + row < M) & (q < K * R))
        tl.debug_barrier()  # other threads of the program read the values that this one wrote
        x_ic = tl.load(x + row3 * (K * R) + place, mask=exists, other=0.0)
        if SAVES:
            tl.debug_barrier()  # other threads must have read the values before this one overwrites them
            tl.store(x + row3 * (K * R) + i3 * R + c3, x_ic, mask=exists)
    x_ic = x_ic.to(tl.float32)

    i = tl.arange(0, CLUSTERS)[None, :]
    c = tl.arange(0, RANK)[None, :]
    if ROUTER == "dense":
        logits = tl.load(route + (start + row) * K + i, mask=(start + row < M) & (i < K), other=0.0)
        logits = tl.where(i < K, logits, float("-inf"))
        mixture = tl.exp(logits - tl.max(logits, axis=1)[:, None])
        mixture /= tl.sum(mixture, axis=1)[:, None]
    elif ROUTER == "inner_product":
        mixture = tl.sum(x_ic * tl.load(route + c3, mask=c3 < R, other=0.0).to(tl.float32), axis=2)
    else:
        mixture = tl.zeros((BLOCK_M, CLUSTERS), dtype=tl.float32) + 1.0 / K
    if SAVES:
        tl.store(alpha + (start + row) * K + i, mixture, mask=(start + row < M) & (i < K))
    total = scale * tl.sum(mixture[:, :, None] * x_ic, axis=1)
    if HAS_MASK:
        total *= tl.load(mask + (start + row) * R + c, mask=(start + row < M) & (c < R), other=0).to(tl.float32)
    tl.store(z + (start + row) * R + c, total.to(z.dtype.element_ty), mask=(start + row < M) & (c < R))


@triton.jit
def apply_kernel(
    base, z, B, out, ROWS,
    NS: tl.constexpr, RS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute y = y0 + (c z) Bᵀ. The s chunks of a row are contiguous: here y0 is (M·s, N/s) and z (M·s, r/s)."""
    start = tl.program_id(1).to(tl.int64) * BLOCK_M
    row = tl.arange(0, BLOCK_M)[:, None]
    row_exists = start + row < ROWS
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.arange(0, CHUNK)
    place = row * NS + column[None, :]
    inside = row_exists & (column[None, :] < NS)
    y0 = tl.load(base + start * NS + place, mask=inside, other=0.0)
    z_c = tl.load(z + start * RS + row * RS + c[None, :], mask=row_exists & (c[None, :] < RS), other=0.0)
    B_t = tl.load(B + column[None, :] * RS + c[:, None], mask=(column[None, :] < NS) & (c[:, None] < RS), other=0.0)
    u = tl.dot(z_c, B_t.to(z_c.dtype), input_precision=PRECISION)
    tl.store(out + start * NS + place, (y0.to(tl.float32) + u).to(out.dtype.element_ty), mask=inside)


@triton.jit
def few_tokens_kernel(
    base, x_apart, bias, B, route, pivots, out, scale,
    N: tl.constexpr, K: tl.constexpr, R: tl.constexpr, S: tl.constexpr, ROUTER: tl.constexpr,
    HAS_BIAS: tl.constexpr, OVERLAPS: tl.constexpr, APART: tl.constexpr,
    BLOCK_N: tl.constexpr, CLUSTERS: tl.constexpr, RANK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute y of one token and BLOCK_N columns of one chunk, for decoding; every program recomputes α and z.

    With OVERLAPS, values that do not depend on the base's output are loaded before the program waits for it.
    """
    NS: tl.constexpr = N // S
    RS: tl.constexpr = R // S
    BLOCKS: tl.constexpr = (NS + BLOCK_N - 1) // BLOCK_N
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) // BLOCKS
    n = (tl.program_id(1) % BLOCKS) * BLOCK_N + tl.arange(0, BLOCK_N)
    i = tl.arange(0, CLUSTERS)[:, None]
    c = tl.arange(0, CHUNK)[None, :]
    B_n = tl.load(B + n[:, None] * RS + c, mask=(n[:, None] < NS) & (c < RS), other=0.0).to(tl.float32)
    exists = (i < K) & (c < RS)
    pivot = tl.load(pivots + i * R + j * RS + c, mask=exists, other=0)
    if ROUTER == "inner_product":
        whole = tl.arange(0, RANK)[None, :]
        T = tl.load(route + whole, mask=whole < R, other=0.0).to(tl.float32)
        every_pivot = tl.load(pivots + i * R + whole, mask=(i < K) & (whole < R), other=0)
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()

    base += row * N
    y0 = tl.load(base + j * NS + n, mask=n < NS, other=0.0).to(tl.float32)
    if APART:
        x_apart += row * (K * R)
        x = tl.load(x_apart + i * R + j * RS + c, mask=exists, other=0.0).to(tl.float32)
    else:
        x = _pivot_values(base, bias, 0, True, pivot, exists, N, HAS_BIAS)
    if ROUTER == "dense":
        logits = tl.load(route + row * K + i, mask=i < K, other=float("-inf"))
        mixture = tl.exp(logits - tl.max(logits, axis=0)[None, :])
        mixture /= tl.sum(mixture, axis=0)[None, :]
    elif ROUTER == "inner_product":
        if APART:
            every_x = tl.load(x_apart + i * R + whole, mask=(i < K) & (whole < R), other=0.0).to(tl.float32)
        else:
            every_x = _pivot_values(base, bias, 0, True, every_pivot, (i < K) & (whole < R), N, HAS_BIAS)
        mixture = tl.sum(every_x * T, axis=1)[:, None]
    else:
        mixture = tl.zeros((CLUSTERS, 1), dtype=tl.float32) + 1.0 / K
    z = scale * tl.sum(mixture * x, axis=0)
    u = tl.sum(B_n * z[None, :], axis=1)
    tl.store(out + row * N + j * NS + n, (y0 + u).to(out.dtype.element_ty), mask=n < NS)


@triton.jit
def unmix_kernel(
    dbase, x, alpha, dz, T, mask, pivots, order, droute, dT, scale, M,
    N: tl.constexpr, K: tl.constexpr, R: tl.constexpr, ROUTER: tl.constexpr, HAS_MASK: tl.constexpr,
    APART: tl.constexpr, BLOCK_M: tl.constexpr, SLOTS: tl.constexpr, CLUSTERS: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """Add dx_i to dbase (M, N), a copy of dy, or with APART write them there, N = k·r.

    `dz` (M, r) holds dy^j B, without mask and scale.

    `droute` (M, k) receives dlogits of the dense router, dα of the inner product. For the latter's dT = Σ dα_i x_i
    each program writes its part to dT (programs, r), so that the sum does not depend on the order in which they end.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK_M
    row = tl.arange(0, BLOCK_M)[:, None]
    row_exists = start + row < M
    dbase += start * N
    alpha += start * K
    dz += start * R
    droute += start * K

    q = tl.arange(0, SLOTS)[None, :]
    if APART:
        slot, column = q, q
        inside = row_exists & (q < K * R)
        total = tl.zeros((BLOCK_M, SLOTS), dtype=tl.float32)
    else:
        # Load dy at the pivots first: it does not depend on the update, and its latency is the longest.
        slot = tl.load(order + q, mask=q < K * R, other=0)
        column = tl.load(pivots + slot, mask=q < K * R, other=0)
        inside = row_exists & (q < K * R) & (column >= 0) & (column < N)
        total = tl.load(dbase + row * N + column, mask=inside, other=0.0).to(tl.float32)

    if ROUTER != "uniform":
        i = tl.arange(0, CLUSTERS)[None, :]
        c = tl.arange(0, RANK)[None, :]
        dz_c = scale * tl.load(dz + row * R + c, mask=row_exists & (c < R), other=0.0).to(tl.float32)
        if HAS_MASK:
            dz_c *= tl.load(mask + (start + row) * R + c, mask=row_exists & (c < R), other=0).to(tl.float32)
        row3 = tl.arange(0, BLOCK_M)[:, None, None]
        i3 = tl.arange(0, CLUSTERS)[None, :, None]
        c3 = tl.arange(0, RANK)[None, None, :]
        exists = (start + row3 < M) & (i3 < K) & (c3 < R)
        x_ic = tl.load(x + (start + row3) * (K * R) + i3 * R + c3, mask=exists, other=0.0).to(tl.float32)
        dmixture = tl.sum(dz_c[:, None, :] * x_ic, axis=2)
        if ROUTER == "dense":
            mixture = tl.load(alpha + row * K + i, mask=row_exists & (i < K), other=0.0)
            dmixture = mixture * (dmixture - tl.sum(mixture * dmixture, axis=1)[:, None])
        tl.store(droute + row * K + i, dmixture, mask=row_exists & (i < K))
        if ROUTER == "inner_product":
            part = tl.sum(tl.sum(dmixture[:, :, None] * x_ic, axis=1), axis=0)
            tl.store(dT + tl.program_id(0) * R + tl.arange(0, RANK), part, mask=tl.arange(0, RANK) < R)
            tl.debug_barrier()  # other threads of the program read the dα that this one wrote

    owner = slot // R
    c_q = slot - owner * R
    dx = scale * tl.load(dz + row * R + c_q, mask=inside, other=0.0).to(tl.float32)
    if HAS_MASK:
        dx *= tl.load(mask + (start + row) * R + c_q, mask=inside, other=0).to(tl.float32)
    dx *= tl.load(alpha + row * K + owner, mask=inside, other=0.0)
    if ROUTER == "inner_product":
        dalpha = tl.load(droute + row * K + owner, mask=inside, other=0.0)
        dx += dalpha * tl.load(T + c_q, mask=q < K * R, other=0.0).to(tl.float32)
    tl.store(dbase + row * N + column, (total + dx).to(dbase.dtype.element_ty), mask=inside)
