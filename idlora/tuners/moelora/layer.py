"""A linear layer with MoELoRA adapters.

α = softmax(T h)                          T (n, in)
u = W h + b + c Σ_i α_i B_i A_i d(h)      A_i (r, in), B_i (out, r), d one dropout mask, c = lora_alpha/r
"""

from idlora.tuners.common import ExpertsLayer


class MoeLoraLinear(ExpertsLayer):
    """A frozen linear layer with MoELoRA adapters: n experts with an A each, see `ExpertsLayer`."""

    adapter_layer_names = ("moelora_A", "moelora_B", "moelora_router")
    shared_A = False
