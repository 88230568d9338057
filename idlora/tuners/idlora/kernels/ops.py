"""The kernels as differentiable operators that torch.compile can trace."""

import torch
from torch import Tensor
from torch.library import custom_op, triton_op, wrap_triton

from idlora.tuners.idlora.kernels import launch


@triton_op("idlora::adapt", mutates_args={})
def adapt(
    base: Tensor, x: Tensor | None, pivots: Tensor, order: Tensor, B: Tensor, bias: Tensor | None,
    route: Tensor | None, mask: Tensor | None, router: str, scale: float, saves: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute y (M, out), and for the backward x (M, k, r) and c z (M, r) in y's type and α (M, k) in float32.

    base (M, out) is W h + b, contiguous. x (M, k, r), contiguous, of any floating type, is A_i h if it is not to be
    gathered from base; the second result is then empty. pivots (k, r) int32; order (2, k·r) int32, see `fused.adapt`;
    B (out/s, r/s) of any floating type; bias (out,). route is the logits (M, k) in float32 of the "dense" router,
    T (r,) of the "inner_product", None for the "uniform" mixture. mask (M, r) marks the kept entries of z. Products are
    computed in base's type and summed in float32. x and α are undefined unless `saves`.
    """
    y, saved_x, alpha, z = launch.adapt(
        base, pivots, order, x=x, B=B, bias=bias, route=route, mask=mask, router=router, scale=scale, saves=saves,
        launcher=wrap_triton,
    )  # fmt: skip
    return y, saved_x if x is None else x.new_empty(0), alpha, z


@triton_op("idlora::adapt_backward", mutates_args={"dx"})
def adapt_backward(
    dx: Tensor, dy: Tensor, x: Tensor, alpha: Tensor, z: Tensor, pivots: Tensor, order: Tensor, B: Tensor,
    T: Tensor | None, mask: Tensor | None, apart: bool, router: str, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute dB (out/s, r/s) in dy's type and droute in float32: dlogits (M, k), dT (r,), or empty.

    dx is a copy of dy (M, out), contiguous, and becomes the gradient of base; if x was given, `apart`, dx is (M, k, r)
    and becomes the gradient of x. The other arguments are those and the outputs of `adapt`, T the inner product's.
    """
    return launch.adapt_backward(
        dx, dy, x=x, alpha=alpha, z=z, pivots=pivots, order=order, B=B, T=T, mask=mask, apart=apart, router=router,
        scale=scale, launcher=wrap_triton,
    )  # fmt: skip


def _save_for_adapt(ctx, inputs, output) -> None:
    _, given_x, pivots, order, B, _, route, mask, ctx.router, ctx.scale, _ = inputs
    _, x, alpha, z = output
    ctx.apart = given_x is not None
    T = route if ctx.router == "inner_product" else None
    ctx.save_for_backward(given_x if ctx.apart else x, alpha, z, pivots, order, B, T, mask)
    ctx.set_materialize_grads(False)


def _backward_of_adapt(ctx, dy, *_):
    if dy is None:
        return (None,) * 11
    x, alpha, z, pivots, order, B, T, mask = ctx.saved_tensors
    dy = dy.contiguous()
    dx = torch.empty_like(x) if ctx.apart else dy.clone()  # other backward functions may read dy later
    dB, droute = adapt_backward(dx, dy, x, alpha, z, pivots, order, B, T, mask, ctx.apart, ctx.router, ctx.scale)
    droute = None if ctx.router == "uniform" else droute if T is None else droute.to(T.dtype)
    dbase, dx = (dy, dx) if ctx.apart else (dx, None)
    return dbase, dx, None, None, dB.to(B.dtype), None, droute, None, None, None, None


adapt.register_autograd(_backward_of_adapt, setup_context=_save_for_adapt)


@custom_op("idlora::adapt_few", mutates_args={})
def adapt_few(
    base: Tensor, pivots: Tensor, B: Tensor, x: Tensor | None, bias: Tensor | None, route: Tensor | None, router: str,
    scale: float,
) -> Tensor:  # fmt: skip
    """Compute y (M, out) of few tokens in one launch, without a backward; arguments as in `adapt`.

    It is opaque to the compiler, which does not support this kind of launch.
    """
    return launch.adapt_few(base, pivots, B, x=x, bias=bias, route=route, router=router, scale=scale)


@adapt_few.register_fake
def _(base, pivots, B, x, bias, route, router, scale):
    return torch.empty_like(base)


@triton_op("idlora::route", mutates_args={})
def route(h: Tensor, T: Tensor, keeps_h: bool) -> Tensor:
    """Compute logits (M, k) = h Tᵀ in float32 from h (M, in), contiguous, and T (k, in) of any floating type.

    With `keeps_h` the backward computes dT by a kernel from the saved h, else by sums, for which a compiler can
    recompute h.
    """
    return launch.logits(h, T, launcher=wrap_triton)


@triton_op("idlora::route_backward", mutates_args={})
def route_backward(dlogits: Tensor, h: Tensor, T: Tensor) -> Tensor:
    """Compute dT (k, in) in float32 from dlogits (M, k) in float32, h (M, in) and the shape of T."""
    return launch.logits_backward(dlogits, h, T, with_dh=False, launcher=wrap_triton)[1]


def _save_for_route(ctx, inputs, output) -> None:
    h, T, ctx.keeps_h = inputs
    ctx.save_for_backward(h, T)


def _backward_of_route(ctx, dlogits):
    h, T = ctx.saved_tensors
    # Sums and products of vectors: a compiler fuses them with the rest of h's gradient.
    columns = dlogits.unbind(dim=1)
    dh = sum(d[:, None] * T_i.float() for d, T_i in zip(columns, T.unbind(), strict=True)).to(h.dtype)
    if ctx.keeps_h:
        dT = route_backward(dlogits.contiguous(), h, T)
    else:
        dT = torch.stack([(d[:, None] * h.float()).sum(0) for d in columns])
    return dh, dT.to(T.dtype), None


route.register_autograd(_backward_of_route, setup_context=_save_for_route)
