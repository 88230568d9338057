"""The half of a config that every method here has in common with `peft.LoraConfig`."""

from dataclasses import dataclass, field
from typing import ClassVar

from peft import PeftConfig


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class RoutedConfig(PeftConfig):
    """Where a low-rank adapter goes and how large it is; every field means what it means in `peft.LoraConfig`.

    As in PEFT, an adapter keeps the very object that it was given as its config. What the layers compute with is fixed
    when the adapter is made, and saving one whose config says something else by then is refused: copy a config to vary
    it.

    Raises ValueError for values out of range. Leaves out LoRA's variants (rsLoRA, DoRA, rank and alpha patterns,
    tied embeddings, targeted parameters) and `fan_in_fan_out`, which the layer itself tells.
    """

    # What a layer computes with: fixed when the adapter is made, and saved only as long as the config still says it.
    computed_with: ClassVar[tuple[str, ...]] = ("r", "lora_alpha")

    r: int = field(default=8, metadata=_help("Rank."))
    target_modules: list[str] | str | None = field(
        default=None,
        metadata=_help("Names (suffixes) of the modules to adapt, a regular expression, or 'all-linear'."),
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata=_help("Modules to leave alone."))
    lora_alpha: float = field(default=8, metadata=_help("α: the update is scaled by α/r."))
    lora_dropout: float = field(default=0.0, metadata=_help("Probability of dropout."))
    bias: str = field(default="none", metadata=_help("Which of the base's biases train: 'none', 'all' or 'lora_only'."))
    modules_to_save: list[str] | None = field(
        default=None, metadata=_help("Modules trained and saved whole beside the adapter.")
    )
    layers_to_transform: list[int] | int | None = field(default=None, metadata=_help("Layer indices to adapt."))
    layers_pattern: list[str] | str | None = field(default=None, metadata=_help("Name of the list of layers."))

    def __post_init__(self):
        super().__post_init__()
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                setattr(self, name, set(value))
        require_positive_integer(self, "r")
        if not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha must be positive, not {self.lora_alpha!r}")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout must lie in [0, 1), not {self.lora_dropout!r}")
        require_choice(self, "bias", ("none", "all", "lora_only"))
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("layers_pattern needs layers_to_transform: which of the layers shall be adapted?")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("layers_to_transform has no effect with target_modules given as a regular expression")


def require_positive_integer(config: PeftConfig, name: str) -> None:
    """Raise ValueError unless the field holds an integer of at least one."""
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, not {value!r}")


def require_choice(config: PeftConfig, name: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the field holds one of the choices."""
    if getattr(config, name) not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {getattr(config, name)!r}")
