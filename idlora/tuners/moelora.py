"""MoELoRA (Liu et al., 2023, arXiv 2310.18339) as the ID-LoRA paper counts it: n LoRA experts and a token router.

α = softmax(T h)                          T (n, in)
u = W h + b + c Σ_i α_i B_i A_i d(h)      A_i (r, in), B_i (out, r), d one dropout mask, c = lora_alpha/r
"""

from dataclasses import dataclass

from peft import PeftType

from idlora.tuners.common import ExpertsConfig, ExpertsLayer, Paper, RoutedModel


@dataclass
class MoeLoraConfig(ExpertsConfig):
    """MoELoRA with a router over tokens. In the original the gate sees the task, and the experts share one rank.

    `trainable_parameters` has the closed form of what it trains. Raises ValueError for values out of range.

    Args:
        num_experts (int, default 4): n ≥ 1, the number of experts, each of rank r. Table 6 of the ID-LoRA paper counts
            four; raise it for more varied data.
    """

    method_name = "MoELoRA"
    paper = Paper(
        title="When MOE Meets LLMs: Parameter Efficient Fine-tuning for Multi-task Medical Applications",
        authors=(
            "Qidong Liu", "Xian Wu", "Xiangyu Zhao", "Yuanshao Zhu", "Derong Xu", "Feng Tian", "Yefeng Zheng",
        ),
        year=2023,
        arxiv="2310.18339",
    )  # fmt: skip

    num_experts: int = 4

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("MOELORA")

    def trainable_parameters(self, in_features: int, out_features: int) -> int:
        """Return n·r·in + n·out·r + n·in, the sizes of A, B and T."""
        n, r = self.num_experts, self.r
        return n * r * in_features + n * out_features * r + n * in_features


class MoeLoraLinear(ExpertsLayer):
    """A frozen linear layer with MoELoRA adapters, see `ExpertsLayer`."""

    adapter_layer_names = ("moelora_A", "moelora_B", "moelora_router")
    shared_A = False


class MoeLoraModel(RoutedModel):
    """The tuner that PEFT builds for a `MoeLoraConfig`."""

    prefix = "moelora_"
    tuner_layer_cls = MoeLoraLinear
