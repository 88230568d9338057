"""The methods of this project, by name, and their registration with PEFT.

PEFT looks methods up in dictionaries keyed by `PeftType`, an enumeration that other packages cannot extend.
`add_peft_type` adds a member; everything else goes through PEFT's own `register_peft_method`.
"""

from dataclasses import dataclass

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method


@dataclass(frozen=True)
class Method:
    """One registered method. Its PEFT type is `name` in capitals; its parameters' prefix is `name` plus underscore."""

    name: str
    config_cls: type[PeftConfig]
    model_cls: type[BaseTuner]

    @property
    def peft_type(self) -> PeftType:
        return PeftType(self.name.upper())


REGISTRY: dict[str, Method] = {}


def add_peft_type(name: str) -> PeftType:
    """Return the member `name` of `PeftType`, after adding it if it does not exist.

    A plain string in PEFT's dictionaries does not suffice: transformers' `load_adapter` and the Trainer read
    `peft_type.value`. The new member supports lookup, iteration, pickle and copy like any other.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    member.__objclass__ = PeftType
    member._sort_order_ = len(PeftType)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)
    return member


def register(name: str, config_cls: type[PeftConfig], model_cls: type[BaseTuner]) -> Method:
    """Register a method with PEFT under `name` (lower case) and list it in `REGISTRY`. Repeating it changes nothing.

    The config brings the closed form of what the method trains, `RoutedConfig.trainable_parameters`; the tests of the
    contract run over `REGISTRY`.

    Raises KeyError if another package has registered the name.
    """
    if PEFT_TYPE_TO_CONFIG_MAPPING.get(add_peft_type(name.upper())) is not config_cls:
        register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls)
    REGISTRY[name] = Method(name, config_cls, model_cls)
    return REGISTRY[name]
