"""HydraLoRA (Tian et al., 2024): one shared A, several B, a token router."""

from idlora.tuners.hydralora.config import HydraLoraConfig
from idlora.tuners.hydralora.layer import HydraLoraLinear
from idlora.tuners.hydralora.model import HydraLoraModel

__all__ = ["HydraLoraConfig", "HydraLoraLinear", "HydraLoraModel"]
