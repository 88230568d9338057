"""The methods of this project, by name, and their registration with PEFT.

PEFT looks methods up in dictionaries keyed by `PeftType`, an enumeration closed to other packages. `add_peft_type`
opens it by one member; everything else goes through PEFT's own `register_peft_method`.
"""

from dataclasses import dataclass

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method


@dataclass(frozen=True)
class Method:
    """One registered method. Its PEFT type is `name` in capitals, its parameters' prefix `name` and an underscore."""

    name: str
    config_cls: type[PeftConfig]
    model_cls: type[BaseTuner]

    @property
    def peft_type(self) -> PeftType:
        return PeftType(self.name.upper())


REGISTRY: dict[str, Method] = {}


def add_peft_type(name: str) -> PeftType:
    """The member `name` of `PeftType`, added if it is not there yet.

    A plain string in PEFT's dictionaries would not do: transformers' `load_adapter` and the Trainer read
    `peft_type.value`. The member added here behaves as any other (lookup by value and by name, iteration, pickle,
    copy), in every process that has imported this package.
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
    """Make a method known to PEFT under `name` (lower case) and list it in `REGISTRY`. Repeating it changes nothing.

    Raises KeyError where another package has taken the name. Leaves out PEFT's mixed models, which accept a
    hard-coded list of methods.
    """
    peft_type = add_peft_type(name.upper())
    taken = PEFT_TYPE_TO_CONFIG_MAPPING.get(peft_type)
    if taken is not None and (taken.__module__, taken.__qualname__) == (config_cls.__module__, config_cls.__qualname__):
        # Ours already. The classes may still be new objects (a reloaded module), and the newest are the ones in use.
        PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config_cls
        PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = model_cls
        PEFT_TYPE_TO_PREFIX_MAPPING[peft_type] = model_cls.prefix
    else:
        register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls)
    REGISTRY[name] = Method(name, config_cls, model_cls)
    return REGISTRY[name]
