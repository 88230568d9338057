"""The PEFT methods of this project. Importing the package registers each of them with PEFT."""

from idlora.tuners.hydralora import HydraLoraConfig, HydraLoraLinear, HydraLoraModel
from idlora.tuners.idlora import (
    BaseMismatchError,
    IdLoraConfig,
    IdLoraLinear,
    IdLoraModel,
    UnsetPivotsError,
    select_pivots,
)
from idlora.tuners.moelora import MoeLoraConfig, MoeLoraLinear, MoeLoraModel
from idlora.tuners.registry import REGISTRY, Method, register

__all__ = [
    "REGISTRY",
    "BaseMismatchError",
    "HydraLoraConfig",
    "HydraLoraLinear",
    "HydraLoraModel",
    "IdLoraConfig",
    "IdLoraLinear",
    "IdLoraModel",
    "Method",
    "MoeLoraConfig",
    "MoeLoraLinear",
    "MoeLoraModel",
    "UnsetPivotsError",
    "register",
    "select_pivots",
]

register("idlora", IdLoraConfig, IdLoraModel)
register("hydralora", HydraLoraConfig, HydraLoraModel)
register("moelora", MoeLoraConfig, MoeLoraModel)
