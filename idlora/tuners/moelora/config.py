"""Settings of a MoELoRA adapter."""

from dataclasses import dataclass

from peft import PeftType

from idlora.tuners.common import ExpertsConfig


@dataclass
class MoeLoraConfig(ExpertsConfig):
    """MoELoRA (Liu et al., 2023, arXiv 2310.18339) with a router that sees tokens.

    Per adapted module it trains num_experts·r·(in + out) + num_experts·in parameters. Four experts, each of rank r,
    and a dense token router is what the parameter counts of the ID-LoRA paper's Table 6 say.

    Raises ValueError for values out of range. Leaves out the original's gate, which sees the task and not the token,
    and its sharing of one rank among the experts.
    """

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("MOELORA")
