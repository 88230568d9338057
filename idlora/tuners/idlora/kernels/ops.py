"""The kernels as operators that torch.compile traces into, with their derivatives."""

import torch
from torch import Tensor
from torch.library import custom_op, triton_op, wrap_triton

from idlora.tuners.idlora.kernels import launch


@triton_op("idlora::adapt", mutates_args={})
def adapt(
    base: Tensor, pivots: Tensor, order: Tensor, B: Tensor, bias: Tensor | None, route: Tensor | None,
    mask: Tensor | None, router: str, scale: float, saves: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y (M, out), and what the backward needs: x (M, k, r) and c z (M, r) in y's type, α (M, k) in float32.

    base (M, out) is W h + b, contiguous; pivots (k, r) int32; order (2, k·r) int32, see `fused.adapt`; B (out/s, r/s)
    of any floating type; bias (out,); route the logits (M, k) in float32 of the "dense" router, T (r,) of the
    "inner_product", None of the "uniform" mixture; mask (M, r) the kept entries of z. Products are made in base's type
    and summed in float32. Unless it saves them, x and α are not what they should be.
    """
    return launch.adapt(
        base, pivots, order, B=B, bias=bias, route=route, mask=mask, router=router, scale=scale, saves=saves,
        launcher=wrap_triton,
    )  # fmt: skip


@triton_op("idlora::adapt_backward", mutates_args={"dy"})
def adapt_backward(
    dy: Tensor, x: Tensor, alpha: Tensor, z: Tensor, pivots: Tensor, order: Tensor, B: Tensor, T: Tensor | None,
    mask: Tensor | None, router: str, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dB (out/s, r/s) in dy's type and, in float32, droute: dlogits (M, k), dT (r,), or empty. dy becomes dbase.

    Arguments as `adapt` has and gives them; dy (M, out) contiguous; T of the inner product.
    """
    return launch.adapt_backward(
        dy, x, alpha, z=z, pivots=pivots, order=order, B=B, T=T, mask=mask, router=router, scale=scale,
        launcher=wrap_triton,
    )  # fmt: skip


def _save_for_adapt(ctx, inputs, output) -> None:
    _, pivots, order, B, _, route, mask, ctx.router, ctx.scale, _ = inputs
    _, x, alpha, z = output
    ctx.save_for_backward(x, alpha, z, pivots, order, B, route if ctx.router == "inner_product" else None, mask)
    ctx.set_materialize_grads(False)


def _backward_of_adapt(ctx, dy, *_):
    if dy is None:
        return (None,) * 10
    x, alpha, z, pivots, order, B, T, mask = ctx.saved_tensors
    dbase = dy.clone(memory_format=torch.contiguous_format)  # someone else may read dy as well, and after us
    dB, droute = adapt_backward(dbase, x, alpha, z, pivots, order, B, T, mask, ctx.router, ctx.scale)
    droute = None if ctx.router == "uniform" else droute if T is None else droute.to(T.dtype)
    return dbase, None, None, dB.to(B.dtype), None, droute, None, None, None, None


adapt.register_autograd(_backward_of_adapt, setup_context=_save_for_adapt)


@custom_op("idlora::adapt_few", mutates_args={})
def adapt_few(
    base: Tensor, pivots: Tensor, B: Tensor, bias: Tensor | None, route: Tensor | None, router: str, scale: float,
) -> Tensor:  # fmt: skip
    """y (M, out) of few tokens in one launch, without a backward. Arguments as of `adapt`.

    Opaque to the compiler, which does not know the kind of launch that it needs.
    """
    return launch.adapt_few(base, pivots, B, bias=bias, route=route, router=router, scale=scale)


@adapt_few.register_fake
def _(base, pivots, B, bias, route, router, scale):
    return torch.empty_like(base)


@triton_op("idlora::route", mutates_args={})
def route(h: Tensor, T: Tensor, keeps_h: bool) -> Tensor:
    """logits (M, k) = h Tᵀ in float32, from h (M, in), contiguous, and T (k, in) of any floating type.

    `keeps_h` says how the backward gets dT: by a kernel, for which h is kept, or by sums that a compiler can make from
    h made anew.
    """
    return launch.logits(h, T, launcher=wrap_triton)


@triton_op("idlora::route_backward", mutates_args={})
def route_backward(dlogits: Tensor, h: Tensor, T: Tensor) -> Tensor:
    """dT (k, in) in float32, from dlogits (M, k) in float32, h (M, in) and T, of which the shape counts."""
    return launch.logits_backward(dlogits, h, T, with_dh=False, launcher=wrap_triton)[1]


def _save_for_route(ctx, inputs, output) -> None:
    h, T, ctx.keeps_h = inputs
    ctx.save_for_backward(h, T)


def _backward_of_route(ctx, dlogits):
    h, T = ctx.saved_tensors
    # Sums and products of vectors, which a compiler computes where the rest of h's gradient is made.
    columns = dlogits.unbind(dim=1)
    dh = sum(d[:, None] * T_i.float() for d, T_i in zip(columns, T.unbind(), strict=True)).to(h.dtype)
    if ctx.keeps_h:
        dT = route_backward(dlogits.contiguous(), h, T)
    else:
        dT = torch.stack([(d[:, None] * h.float()).sum(0) for d in columns])
    return dh, dT.to(T.dtype), None


route.register_autograd(_backward_of_route, setup_context=_save_for_route)
