"""MoELoRA as a PEFT model."""

from idlora.tuners.common import RoutedModel
from idlora.tuners.moelora.layer import MoeLoraLinear


class MoeLoraModel(RoutedModel):
    """The tuner that PEFT builds for a `MoeLoraConfig`."""

    prefix = "moelora_"
    tuner_layer_cls = MoeLoraLinear
