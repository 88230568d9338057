"""How sharp the loss is where a training starts, and how far its first step moves what the modules compute.

    L(θ)  = Σ −log p(token) / n        over the n response tokens of some rows; θ (p,) are the trained parameters
    H v   = ∇(∇L · v)                  two backward passes a product; H (p, p) itself is never made
    λ_max = the largest eigenvalue of H

Gradient descent is stable up to a rate of 2/λ_max; Adam's limit moves with it. λ_max is found by Lanczos' iteration:
power iteration that keeps the coefficients of its products. Where B starts at zero, H's spectrum is nearly symmetric
about zero, so that plain power iteration wanders between the largest eigenvalue and the smallest.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from reproduction.data.tokenization import IGNORED

Batch = Mapping[str, torch.Tensor]
"""What `Collator` makes of rows, on the model's device: input_ids, labels, attention_mask, each (rows, length)."""


@dataclass(frozen=True)
class Eigenvalue:
    """The largest eigenvalue as it was found; `converged` where a true one lies within the tolerance of it."""

    value: float
    iterations: int
    converged: bool


def take_plain_passes(model: nn.Module) -> None:
    """Switch dropout off, and kernels of our own, which have no second derivative. Attention must be the eager one."""
    model.eval()
    for module in model.modules():
        if getattr(module, "kernels_enabled", False):
            module.kernels_enabled = False


def trained(model: nn.Module) -> list[nn.Parameter]:
    """θ, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def count_response_tokens(batches: Iterable[Batch]) -> int:
    """n, the tokens that the loss is the mean over."""
    return sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)


def losses(model: nn.Module, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
    """Of each micro-batch its share of L, a scalar, one after another; their sum is L."""
    tokens = count_response_tokens(batches)
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        predicted, labels = logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
        yield F.cross_entropy(predicted, labels, ignore_index=IGNORED, reduction="sum") / tokens


def hessian_product(
    parameters: Sequence[torch.Tensor], parts: Callable[[], Iterable[torch.Tensor]]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """v (p,) to H v (p,), for a loss that is the sum of `parts`, scalars that each call computes anew.

    One part's graph is in memory at a time.
    """
    sizes = [parameter.numel() for parameter in parameters]

    def product(v: torch.Tensor) -> torch.Tensor:
        along = [part.view_as(parameter) for part, parameter in zip(v.split(sizes), parameters, strict=True)]
        total = torch.zeros_like(v)
        for loss in parts():
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            slope = sum((gradient * part).sum() for gradient, part in zip(gradients, along, strict=True))
            # A parameter that the slope does not depend on has zeros there.
            second = torch.autograd.grad(slope, parameters, materialize_grads=True)
            total += torch.cat([each.flatten() for each in second])
        return total

    return product


def largest_eigenvalue(
    product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, *, iterations: int, tolerance: float
) -> Eigenvalue:
    """The largest eigenvalue of a symmetric matrix (p, p), of which products with a vector (p,) are known.

        β q' = H q − α q − β₋ q₋         α = q · H q, β the norm of the right side; q from `start`, at norm 1

    The eigenvalues of the tridiagonal matrix of α and β approach H's, the outermost first. The residual of the largest
    one, β |s| with s the last entry of its eigenvector, bounds how far the nearest true eigenvalue is; the search ends
    where that is at most `tolerance` of it, or after so many products. The q are not made orthogonal again: rounding
    gives copies of eigenvalues that were found, and no larger ones.
    """
    q, before, beta = start / start.norm(), torch.zeros_like(start), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    while len(diagonal) < iterations:
        w = product(q).sub_(before, alpha=beta)
        diagonal.append(float(q @ w))
        w.sub_(q, alpha=diagonal[-1])
        T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        for index, value in enumerate(beside):
            T[index, index + 1] = T[index + 1, index] = value
        values, vectors = torch.linalg.eigh(T)
        value, beta = float(values[-1]), float(w.norm())
        if converged := beta * abs(float(vectors[-1, -1])) <= tolerance * abs(value):
            break
        beside.append(beta)
        before, q = q, w / beta
    return Eigenvalue(value, len(diagonal), converged)


def first_update(
    model: nn.Module, batches: Sequence[Batch], modules: Mapping[str, nn.Module], *, rate: float, tokens: int = 256
) -> dict[str, float]:
    """‖u' − u‖ / ‖u‖ by module, where u (tokens, out) is its output, u' that after AdamW's first step at `rate`.

    Both are of the same inputs: those that the model gave the module at `tokens` tokens of the first micro-batch before
    the step. A bias is in u. The step is of the gradient of the whole L, without weight decay; the model has taken it.
    """
    with torch.no_grad():
        inputs = _inputs(model, batches, modules, tokens=tokens)
        before = {name: module(inputs[name]) for name, module in modules.items()}
    optimizer = torch.optim.AdamW(trained(model), lr=rate, weight_decay=0.0)
    for loss in losses(model, batches):
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        after = {name: module(inputs[name]) for name, module in modules.items()}
    return {name: float((after[name] - u).norm() / u.norm()) for name, u in before.items()}


def _inputs(
    model: nn.Module, batches: Sequence[Batch], modules: Mapping[str, nn.Module], *, tokens: int
) -> dict[str, torch.Tensor]:
    """The modules' inputs, (tokens, in), at tokens that lie evenly over the first micro-batch, padding apart."""
    places = batches[0]["attention_mask"].flatten().nonzero().flatten()
    places = places[:: math.ceil(len(places) / tokens)]
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found[name] = inputs[0].flatten(0, 1)[places]

    handles = [module.register_forward_pre_hook(functools.partial(keep, name)) for name, module in modules.items()]
    next(losses(model, batches[:1]))
    for handle in handles:
        handle.remove()
    return found
