"""A linear layer with HydraLoRA adapters.

    α = softmax(T h)                       T (n, in), in float32, on h without dropout
    u = W h + b + (α/r) Σ_i α_i B_i A d(h)      A (r, in), B_i (out, r), d one dropout mask

n experts share A, so A d(h) is computed once, and Σ_i α_i B_i a = [B_1 … B_n] [α_1 a; …; α_n a] is one product.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from idlora.tuners.common import RoutedLayer, softmax_route
from idlora.tuners.hydralora.config import HydraLoraConfig


class HydraLoraLinear(RoutedLayer):
    """A frozen linear layer with HydraLoRA adapters: per adapter, `hydralora_A` (r, in), drawn as LoRA's,
    `hydralora_B` (out, n, r), zero, so that B_i is `[:, i]`, and `hydralora_router` (n, in), drawn like A: n equal B
    under an even router would receive equal gradients and stay equal for ever.
    """

    adapter_layer_names = ("hydralora_A", "hydralora_B", "hydralora_router")

    def create_containers(self) -> None:
        self.hydralora_A = nn.ParameterDict()
        self.hydralora_B = nn.ParameterDict()
        self.hydralora_router = nn.ParameterDict()

    def init_adapter(self, adapter_name: str, config: HydraLoraConfig) -> None:
        n, r = config.num_experts, config.r
        self.hydralora_A[adapter_name] = nn.Parameter(torch.empty(r, self.in_features))
        self.hydralora_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, n, r))
        self.hydralora_router[adapter_name] = nn.Parameter(torch.empty(n, self.in_features))
        nn.init.kaiming_uniform_(self.hydralora_A[adapter_name], a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.hydralora_router[adapter_name], a=math.sqrt(5))

    def update(self, adapter_name: str, h: torch.Tensor, base_output: torch.Tensor) -> torch.Tensor:
        A, B = self.hydralora_A[adapter_name], self.hydralora_B[adapter_name]
        alpha = softmax_route(self.hydralora_router[adapter_name], h)  # (..., n)
        a = F.linear(self.dropout[adapter_name](self._cast_input_dtype(h, A.dtype)), A)  # (..., r)
        mixed = alpha.to(a.dtype).unsqueeze(-1) * a.unsqueeze(-2)  # (..., n, r)
        return F.linear(self.scaling[adapter_name] * mixed.flatten(-2), B.flatten(1))
