"""HydraLoRA (Tian et al., 2024, arXiv 2404.19245): n experts that share A, and a token router.

α = softmax(T h)                        T (n, in)
u = W h + b + c Σ_i α_i B_i A d(h)      A (r, in), B_i (out, r), d one dropout mask, c = lora_alpha/r
"""

from dataclasses import dataclass

from peft import PeftType

from idlora.tuners.common import ExpertsConfig, ExpertsLayer, Paper, RoutedModel


@dataclass
class HydraLoraConfig(ExpertsConfig):
    """HydraLoRA with a fixed number of B matrices; the original chooses the number by clustering the training data.

    `trainable_parameters` has the closed form of what it trains. Raises ValueError for values out of range.

    Args:
        num_experts (int, default 3): n ≥ 1, the number of B matrices that the router mixes. Table 6 of the ID-LoRA
            paper counts three; raise it for more varied data.
    """

    method_name = "HydraLoRA"
    paper = Paper(
        title="HydraLoRA: An Asymmetric LoRA Architecture for Efficient Fine-Tuning",
        authors=("Chunlin Tian", "Zhan Shi", "Zhijiang Guo", "Li Li", "Chengzhong Xu"),
        year=2024,
        arxiv="2404.19245",
    )

    num_experts: int = 3

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("HYDRALORA")

    def trainable_parameters(self, in_features: int, out_features: int) -> int:
        """Return r·in + n·out·r + n·in, the sizes of A, B and T."""
        n, r = self.num_experts, self.r
        return r * in_features + n * out_features * r + n * in_features


class HydraLoraLinear(ExpertsLayer):
    """A frozen linear layer with HydraLoRA adapters, see `ExpertsLayer`."""

    adapter_layer_names = ("hydralora_A", "hydralora_B", "hydralora_router")
    shared_A = True


class HydraLoraModel(RoutedModel):
    """The tuner that PEFT builds for a `HydraLoraConfig`."""

    prefix = "hydralora_"
    tuner_layer_cls = HydraLoraLinear
