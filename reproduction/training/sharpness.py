"""Sharpness of the loss at the start of a training, and the change of the modules' outputs in its first step.

    L(θ)  = Σ −log p(token) / n        over the n response tokens of some rows; θ (p,) are the trained parameters
    H v   = ∇(∇L · v)                  two backward passes a product; H (p, p) itself is never computed
    λ_max = the largest eigenvalue of H

Gradient descent is stable up to a rate of 2/λ_max; Adam's limit changes with it. λ_max is computed by Lanczos
iteration, a power iteration that keeps the coefficients of its products. If B starts at zero, H's spectrum is nearly
symmetric about zero, and plain power iteration wanders between the largest and the smallest eigenvalue.
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
"""Output of `Collator` on the model's device: input_ids, labels, attention_mask, each (rows, length)."""


@dataclass(frozen=True)
class Eigenvalue:
    """Estimate of the largest eigenvalue; `converged` if a true eigenvalue lies within the tolerance of it."""

    value: float
    iterations: int
    converged: bool


def take_plain_passes(model: nn.Module) -> None:
    """Switch off dropout and this project's kernels, which have no second derivative. Attention must be eager."""
    model.eval()
    for module in model.modules():
        if getattr(module, "kernels_enabled", False):
            module.kernels_enabled = False


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return θ, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def count_response_tokens(batches: Iterable[Batch]) -> int:
    """Return n, the number of tokens in the mean of the loss."""
    return sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)


def losses(model: nn.Module, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
    """Yield each micro-batch's share of L, a scalar; their sum is L."""
    tokens = count_response_tokens(batches)
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        predicted, labels = logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
        yield F.cross_entropy(predicted, labels, ignore_index=IGNORED, reduction="sum") / tokens


def hessian_product(
    parameters: Sequence[torch.Tensor], parts: Callable[[], Iterable[torch.Tensor]]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function v (p,) → H v (p,) for the sum of `parts`, scalars that each call recomputes.

    One part's graph is in memory at a time.
    """
    sizes = [parameter.numel() for parameter in parameters]

    def product(v: torch.Tensor) -> torch.Tensor:
        along = [part.view_as(parameter) for part, parameter in zip(v.split(sizes), parameters, strict=True)]
        total = torch.zeros_like(v)
        for loss in parts():
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            slope = sum((gradient * part).sum() for gradient, part in zip(gradients, along, strict=True))
            # The gradient is zero for a parameter that the slope does not depend on.
            second = torch.autograd.grad(slope, parameters, materialize_grads=True)
            total += torch.cat([each.flatten() for each in second])
        return total

    return product


def largest_eigenvalue(
    product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, *, iterations: int, tolerance: float
) -> Eigenvalue:
    """Compute the largest eigenvalue of a symmetric matrix (p, p) from its products with vectors (p,).

        β q' = H q − α q − β₋ q₋         α = q · H q, β the norm of the right side; q starts as `start`, at norm 1

    The eigenvalues of the tridiagonal matrix of α and β converge to H's, the outermost first. The residual of the
    largest one, β |s| with s the last entry of its eigenvector, bounds the distance to the nearest true eigenvalue; the
    iteration ends if that is at most `tolerance` times the eigenvalue, or after `iterations` products. The q are not
    re-orthogonalised: rounding only adds copies of converged eigenvalues, no larger ones.
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
    """Compute ‖u' − u‖ / ‖u‖ by module, u (tokens, out) its output and u' that after AdamW's first step at `rate`.

    Both use the module's inputs at `tokens` tokens of the first micro-batch before the step. u includes a bias. The
    step uses the gradient of the whole L, without weight decay, and changes the model.
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
    """Return the modules' inputs, (tokens, in), at evenly spaced tokens of the first micro-batch, without padding."""
    places = batches[0]["attention_mask"].flatten().nonzero().flatten()
    places = places[:: math.ceil(len(places) / tokens)]
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found[name] = inputs[0].flatten(0, 1)[places]

    handles = [module.register_forward_pre_hook(functools.partial(keep, name)) for name, module in modules.items()]
    try:
        next(losses(model, batches[:1]))
    finally:
        for handle in handles:
            handle.remove()
    return found
