"""A frozen linear layer with n low-rank experts that a dense token router mixes.

    α = softmax(T h)                            T (n, in), in float32, on h without dropout
    Δ(h) = Σ_i α_i B_i A_i d(h)                 A_i (r, in), B_i (out, r), d one dropout mask for all experts

All A_i are stacked in one matrix (experts that share A have only that matrix), so all A_i d(h) are one product.
Σ_i α_i B_i a_i = [B_1 … B_n] [α_1 a_1; …; α_n a_n] is one product as well.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from idlora.tuners.common.config import RoutedConfig, require_positive_integers
from idlora.tuners.common.layer import RoutedLayer, softmax_route


@dataclass
class ExpertsConfig(RoutedConfig):
    """Settings of n experts. Raises ValueError for values out of range.

    Args:
        num_experts (int, default 4): n ≥ 1, the number of experts that the router mixes.
    """

    num_experts: int = 4

    def __post_init__(self):
        super().__post_init__()
        require_positive_integers(self, "num_experts")


class ExpertsLayer(RoutedLayer):
    """A frozen linear layer with adapters of n experts, by the equations at the top of this file.

    A subclass sets `adapter_layer_names`, its names of A, B and T in this order, and `shared_A`. A is (r, in) if the
    experts share it, else (n·r, in), expert after expert. A is initialised as in LoRA. B (out, n, r) starts at zero;
    `B[:, i]` is B_i. T is initialised like A: under an even router, experts with a shared A get equal gradients and
    stay equal.
    """

    adapter_layer_names: tuple[str, str, str]
    shared_A: bool

    def create_containers(self) -> None:
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())

    def init_adapter(self, adapter_name: str, config: ExpertsConfig) -> None:
        n, r = config.num_experts, config.r
        A, B, router = (getattr(self, name) for name in self.adapter_layer_names)
        A[adapter_name] = nn.Parameter(torch.empty(r if self.shared_A else n * r, self.in_features))
        B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, n, r))
        router[adapter_name] = nn.Parameter(torch.empty(n, self.in_features))
        for drawn in (A, router):
            nn.init.kaiming_uniform_(drawn[adapter_name], a=math.sqrt(5))

    def alpha(self, adapter_name: str, h: torch.Tensor) -> torch.Tensor:
        return softmax_route(getattr(self, self.adapter_layer_names[2])[adapter_name], h)

    def update(self, adapter_name: str, h: torch.Tensor, base_output: torch.Tensor) -> torch.Tensor:
        A, B, _ = (getattr(self, name)[adapter_name] for name in self.adapter_layer_names)
        alpha = self.alpha(adapter_name, h)  # (..., n)
        a = F.linear(self.dropout[adapter_name](self._cast_input_dtype(h, A.dtype)), A)
        a = a.unflatten(-1, (-1, B.shape[-1]))  # (..., n, r), or (..., 1, r) where A is shared
        mixed = alpha.to(a.dtype).unsqueeze(-1) * a
        return F.linear(self.scaling[adapter_name] * mixed.flatten(-2), B.flatten(1))
