"""The kernels as autograd functions for eager mode: the launches of `ops` without the cost of operator dispatch."""

import torch

from idlora.tuners.idlora.kernels import launch


def _as_it_is(kernel):
    return kernel


class Adapt(torch.autograd.Function):
    """Compute y (M, out) from the arguments of `ops.adapt`."""

    @staticmethod
    def forward(ctx, base, x, pivots, order, B, bias, route, mask, router, scale, saves):
        ctx.apart, ctx.router, ctx.scale = x is not None, router, scale
        with launch.on_device(base):
            y, x, alpha, z = launch.adapt(
                base, pivots, order, x=x, B=B, bias=bias, route=route, mask=mask, router=router, scale=scale,
                saves=saves, launcher=_as_it_is,
            )  # fmt: skip
        ctx.save_for_backward(x, alpha, z, pivots, order, B, route if router == "inner_product" else None, mask)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, alpha, z, pivots, order, B, T, mask = ctx.saved_tensors
        dy = dy.contiguous()
        dx = torch.empty_like(x) if ctx.apart else dy.clone()  # other backward functions may read dy
        dB, droute = launch.adapt_backward(
            dx, dy, x=x, alpha=alpha, z=z, pivots=pivots, order=order, B=B, T=T, mask=mask, apart=ctx.apart,
            router=ctx.router, scale=ctx.scale, launcher=_as_it_is,
        )  # fmt: skip
        droute = None if ctx.router == "uniform" else droute if T is None else droute.to(T.dtype)
        dbase, dx = (dy, dx) if ctx.apart else (dx, None)
        return dbase, dx, None, None, dB.to(B.dtype), None, droute, None, None, None, None


class Route(torch.autograd.Function):
    """Compute logits (M, k) in float32 from h (M, in) and T (k, in)."""

    @staticmethod
    def forward(ctx, h, T):
        ctx.save_for_backward(h, T)
        with launch.on_device(h):
            return launch.logits(h, T, launcher=_as_it_is)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dlogits):
        h, T = ctx.saved_tensors
        dh, dT = launch.logits_backward(dlogits.contiguous(), h, T, with_dh=ctx.needs_input_grad[0], launcher=_as_it_is)
        return dh, dT.to(T.dtype)
