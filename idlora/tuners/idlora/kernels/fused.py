"""The update of one adapter by the kernels: the choice of kernel by router, number of tokens and compilation."""

import torch

from idlora.tuners.idlora.kernels import eager, launch, ops
from idlora.tuners.idlora.kernels.limits import entry_type


def logits(h: torch.Tensor, T: torch.Tensor, out_features: int) -> torch.Tensor:
    """Compute T h (tokens, k) in float32 from h (..., in) and the dense router T (k, in), with gradients.

    Under autocast h is cast as for the base layer. `out_features` is the base layer's.
    """
    h = h.to(entry_type(h))
    h = h.reshape(-1, h.shape[-1]).contiguous()  # reshape can give a view with gaps, for example of a slice of rows
    if torch.compiler.is_compiling():
        # An input wider than the output is expensive to save, and a compiler can often recompute it.
        return ops.route(h, T, h.shape[1] <= out_features)
    return eager.Route.apply(h, T)


def adapt(
    base_output: torch.Tensor,
    *,
    x: torch.Tensor | None,
    pivots: torch.Tensor,
    order: torch.Tensor,
    B: torch.Tensor,
    bias: torch.Tensor | None,
    route: torch.Tensor | None,
    scale: float,
    dropout: float,
) -> torch.Tensor:
    """Compute base_output + c Σ_i α_i [B x_i^1, …, B x_i^s], of base_output's shape and type, with gradients.

    Args:
        base_output: W h + b, (..., out), float32, bfloat16 or float16 on a GPU; not changed.
        x: A_i h, (..., k·r), of any floating type; None to gather it from base_output.
        pivots: (k, r) int32, all different. Without x, one that is not a row of W makes every token NaN.
        order: (2, k·r) int32, the permutation in which the k·r pivots are visited, and its inverse. Any is correct; in
            ascending order of row, neighbours share memory reads.
        B: (out/s, r/s), any floating type.
        bias: b (out,), frozen, or None; unused with x.
        route: `logits` of the dense router, T (r,) of the inner product, None for the uniform mixture.
        scale: c = lora_alpha/r.
        dropout: probability of dropping an entry of z; 0 outside training.

    Second derivatives, PyTorch's function transforms and a trained bias are not supported.
    """
    shape = base_output.shape
    base, pivots = base_output.reshape(-1, shape[-1]).contiguous(), pivots.contiguous()
    if x is not None:
        x = x.reshape(-1, *pivots.shape).contiguous()
    router = "uniform" if route is None else "dense" if route.dim() == 2 else "inner_product"
    saves, compiling = torch.is_grad_enabled(), torch.compiler.is_compiling()
    if not saves and len(base) <= launch.FEW_TOKENS and dropout == 0:
        adapt_few = ops.adapt_few if compiling else launch.adapt_few
        return adapt_few(base, pivots, B, x=x, bias=bias, route=route, router=router, scale=scale).view(shape)
    mask = None
    if dropout > 0:
        mask = torch.rand(len(base), pivots.shape[1], device=base.device) >= dropout
        scale = scale / (1 - dropout)
    arguments = (base, x, pivots, order, B, bias, route, mask, router, scale, saves)
    y = ops.adapt(*arguments)[0] if compiling else eager.Adapt.apply(*arguments)
    return y.view(shape)
