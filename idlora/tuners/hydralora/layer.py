"""A linear layer with HydraLoRA adapters.

α = softmax(T h)                        T (n, in)
u = W h + b + c Σ_i α_i B_i A d(h)      A (r, in), B_i (out, r), d one dropout mask, c = lora_alpha/r
"""

from idlora.tuners.common import ExpertsLayer


class HydraLoraLinear(ExpertsLayer):
    """A frozen linear layer with HydraLoRA adapters: n experts that share A, see `ExpertsLayer`."""

    adapter_layer_names = ("hydralora_A", "hydralora_B", "hydralora_router")
    shared_A = True
