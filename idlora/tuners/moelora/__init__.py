"""MoELoRA (Liu et al., 2023) as the ID-LoRA paper counts it: full LoRA experts, a token router."""

from idlora.tuners.moelora.config import MoeLoraConfig
from idlora.tuners.moelora.layer import MoeLoraLinear
from idlora.tuners.moelora.model import MoeLoraModel

__all__ = ["MoeLoraConfig", "MoeLoraLinear", "MoeLoraModel"]
