"""ID-LoRA (arXiv 2602.20727): rows of the frozen weight serve as A, all A_i share one small B, a router mixes them."""

from idlora.tuners.idlora.clustering import select_pivots
from idlora.tuners.idlora.config import IdLoraConfig
from idlora.tuners.idlora.fingerprint import BaseMismatchError
from idlora.tuners.idlora.layer import IdLoraLinear, UnsetPivotsError
from idlora.tuners.idlora.model import IdLoraModel

__all__ = [
    "BaseMismatchError",
    "IdLoraConfig",
    "IdLoraLinear",
    "IdLoraModel",
    "UnsetPivotsError",
    "select_pivots",
]
