"""Config fields that every method shares with `peft.LoraConfig`."""

import copy
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from peft import PeftConfig
from peft.utils.other import get_pattern_key

from idlora.tuners.common.card import Paper, write_card

PATTERNS = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}
"""Field with values by module → field with the value of all other modules."""


@dataclass
class RoutedConfig(PeftConfig):
    """Placement and size of a low-rank adapter. Every field has the meaning that it has in `peft.LoraConfig`.

    As in PEFT, an adapter keeps the config object that it was made from. Changing the object afterwards does not change
    the layers, but it is what `save_pretrained` writes: copy a config to vary it. Raises ValueError for values out of
    range.

    Attributes:
        method_name: the method's name on the card of a saved adapter; its lower case is the card's tag. None stands for
            the name of the PEFT type.
        paper: the paper that the card cites, if any.
        saved_parameters: the number in the adapter that is being saved, None at other times.

    Args:
        r (int, default 8): Rank, at least 1. Raise it as long as the loss falls with it.
        target_modules (list of str or str, default None): Names (suffixes) of the linear layers to adapt, a regular
            expression, or 'all-linear'. None takes PEFT's choice; set it for a model that PEFT does not know.
        exclude_modules (list of str or str, default None): Names or a regular expression of modules to leave alone.
            Set it where target_modules matches too much.
        lora_alpha (float, default 8): α > 0; the update is scaled by c = α/r. Change it with r: the ID-LoRA paper has
            α/r = 2 throughout.
        lora_dropout (float, default 0.0): Probability of dropout, in [0, 1). Raise it against overfitting.
        bias ('none', 'all' or 'lora_only', default 'none'): Which of the base's biases train. If any trains, disabling
            the adapter does not restore the base model.
        modules_to_save (list of str, default None): Modules trained and saved whole beside the adapter. Set it, for
            example, for a new classification head.
        layers_to_transform (list of int or int, default None): Indices of the layers to adapt, None for all. Set it to
            adapt only some layers; target_modules must then be a list.
        layers_pattern (list of str or str, default None): Name of the list of layers. Set it, with
            layers_to_transform, if PEFT does not find the layers.
        rank_pattern (dict of str to int, default {}): Ranks of modules that differ from r, by name (suffix) or regular
            expression; the first key that matches counts. Set it to give some modules more parameters than others.
        alpha_pattern (dict of str to float, default {}): Likewise values of α that differ from lora_alpha. A module's
            update is scaled by its own α over its own r: with rank_pattern alone, c changes too.
    """

    method_name: ClassVar[str | None] = None
    paper: ClassVar[Paper | None] = None
    saved_parameters: ClassVar[int | None] = None

    r: int = 8
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)

    def __init_subclass__(cls) -> None:
        """Append the entries above to the `Args:` section at the end of the subclass's docstring."""
        super().__init_subclass__()
        entries = inspect.cleandoc(RoutedConfig.__doc__ or "").partition("Args:\n")[2]
        cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n{entries}"

    def __post_init__(self):
        super().__post_init__()
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                setattr(self, name, set(value))
        require_positive_integers(self, "r")
        _require_positive("lora_alpha", self.lora_alpha)
        self._check_pattern("rank_pattern", _require_positive_integer)
        self._check_pattern("alpha_pattern", _require_positive)
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout must lie in [0, 1), not {self.lora_dropout!r}")
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                choices = ", ".join(map(repr, get_args(kind)))
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("layers_pattern needs layers_to_transform: which of the layers shall be adapted?")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("layers_to_transform has no effect with target_modules given as a regular expression")

    def _check_pattern(self, name: str, require: Callable[[str, Any], None]) -> None:
        pattern = getattr(self, name) or {}
        if not isinstance(pattern, Mapping):
            raise ValueError(f"{name} must be a dictionary from modules to values, not {pattern!r}")
        for key, value in pattern.items():
            try:
                re.compile(key)
            except (re.error, TypeError) as error:
                raise ValueError(f"{name} has {key!r}, which is not a regular expression: {error}") from error
            require(f"{name}[{key!r}]", value)
        setattr(self, name, dict(pattern))

    def at(self, module: str) -> Self:
        """Return a copy whose r and lora_alpha are those of the module with this full name.

        Raises ValueError if they depend on the order of the keys in a way that a saved config does not keep.
        """
        config = copy.copy(self)
        for name, single in PATTERNS.items():
            given = getattr(self, name)
            values = [
                pattern.get(get_pattern_key(pattern, module), getattr(self, single))
                for pattern in (given, dict(sorted(given.items())))
            ]
            if values[0] != values[1]:
                raise ValueError(
                    f"{module} has {single}={values[0]} by the first key of {name} that matches, but {values[1]} in "
                    "alphabetical order, in which PEFT saves the keys: let only one of them match"
                )
            setattr(config, single, values[0])
        return config

    def trainable_parameters(self, in_features: int, out_features: int) -> int:
        """Return the number of parameters that the adapter trains in a linear layer of these sizes: a closed form.

        A method defines it from its equation, beside which it stands; tests compare it with what is counted.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form of what it trains: define this function")

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        super().save_pretrained(save_directory, **kwargs)
        if self.saved_parameters is not None:  # an adapter is being saved, not a config alone
            write_card(Path(save_directory), self)
            self.saved_parameters = None


def require_positive_integers(config: PeftConfig, *names: str) -> None:
    """Raise ValueError unless each field holds an integer of at least one."""
    for name in names:
        _require_positive_integer(name, getattr(config, name))


def _require_positive_integer(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, not {value!r}")


def _require_positive(name: str, value: Any) -> None:
    # NumPy's scalars are refused, since the config could not be saved with them after the training.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive int or float, not {value!r}")
