"""Config fields that every method shares with `peft.LoraConfig`."""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args, get_origin, get_type_hints

from peft import PeftConfig

from idlora.tuners.common.card import Paper, write_card
from idlora.version import __version__


@dataclass
class RoutedConfig(PeftConfig):
    """Placement and size of a low-rank adapter. Every field has the meaning that it has in `peft.LoraConfig`.

    As in PEFT, an adapter keeps the config object that it was made from. Changing the object afterwards does not change
    the layers, but it is what `save_pretrained` writes: copy a config to vary it. Raises ValueError for values out of
    range.

    Attributes:
        method_name: the method's name on the card of a saved adapter, in lower case its tag; None: the PEFT type.
        paper: the paper that the card cites, if any.
        saved_parameters: the number in the adapter that was last saved with this config, or None.

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
        idlora_version (str, default None): Version of this library that saved the adapter, set by `save_pretrained`.
            Do not change it.
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
    idlora_version: str | None = field(default=None, repr=False, metadata={"card": False})

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
        if not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha must be positive, not {self.lora_alpha!r}")
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

    def trainable_parameters(self, in_features: int, out_features: int) -> int:
        """Return the number of parameters that the adapter trains in a linear layer of these sizes: a closed form.

        A method defines it from its equation, beside which it stands; tests compare it with what is counted.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form of what it trains: define this function")

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        self.idlora_version = __version__
        super().save_pretrained(save_directory, **kwargs)
        if self.saved_parameters is not None:  # an adapter is being saved, not a config alone
            write_card(Path(save_directory), self)


def require_positive_integers(config: PeftConfig, *names: str) -> None:
    """Raise ValueError unless each field holds an integer of at least one."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
