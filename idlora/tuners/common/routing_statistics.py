"""Routing weights α of every layer, summed over the tokens that pass through it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from idlora.tuners.common.layer import RoutedLayer


@dataclass
class RoutingStatistics:
    """α (n,) of a layer and its entropy in nats, summed over the layer's tokens, padding included."""

    tokens: int = 0
    alpha: torch.Tensor | float = 0.0
    entropy: torch.Tensor | float = 0.0

    def add(self, alpha: torch.Tensor) -> None:
        """Add the α (..., n) of more tokens."""
        alpha = alpha.flatten(0, -2).double()
        self.tokens += len(alpha)
        self.alpha = self.alpha + alpha.sum(dim=0)
        self.entropy = self.entropy + torch.special.entr(alpha).sum()

    @property
    def normalized_entropy(self) -> float | None:
        """Mean entropy of α over the tokens, over log n: 1 for an even mixture, 0 for one expert; None if n = 1."""
        return float(self.entropy) / self.tokens / math.log(len(self.alpha)) if len(self.alpha) > 1 else None


@contextmanager
def record_routing(layers: Mapping[str, RoutedLayer], adapter_name: str) -> Iterator[dict[str, RoutingStatistics]]:
    """Record α of every layer over its tokens in the context; a layer without tokens has no entry.

    The tokens of a batch with `adapter_names` are those of the adapter's own rows.

    Recording does not change the model's outputs, its gradients or any random generator.
    """
    statistics: dict[str, RoutingStatistics] = {}

    def record(name: str):
        @torch.no_grad()
        def hook(layer: RoutedLayer, arguments: tuple[torch.Tensor, ...]) -> None:
            h, names = arguments[0], layer.row_adapters
            if names is not None:
                h = h[[row for row, each in enumerate(names) if each == adapter_name]]
            if len(h):
                statistics.setdefault(name, RoutingStatistics()).add(layer.alpha(adapter_name, h))

        return hook

    # A pre-hook, because DeepSpeed ZeRO-3 gathers the router just before the layer's forward.
    handles = [layer.register_forward_pre_hook(record(name)) for name, layer in layers.items()]
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()
