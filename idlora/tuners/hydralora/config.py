"""Settings of a HydraLoRA adapter."""

from dataclasses import dataclass, field

from peft import PeftType

from idlora.tuners.common import ExpertsConfig


@dataclass
class HydraLoraConfig(ExpertsConfig):
    """HydraLoRA (Tian et al., 2024, arXiv 2404.19245) with a fixed number of B.

    Per adapted module it trains r·in + num_experts·out·r + num_experts·in parameters. Three experts is what the
    parameter counts of the ID-LoRA paper's Table 6 say.

    Raises ValueError for values out of range. Leaves out the original's initial clustering of the data that chooses
    the number of B.
    """

    num_experts: int = field(default=3, metadata={"help": "Number of B matrices that the router mixes."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("HYDRALORA")
