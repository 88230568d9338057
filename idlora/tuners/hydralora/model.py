"""HydraLoRA as a PEFT model."""

from idlora.tuners.common import RoutedModel
from idlora.tuners.hydralora.layer import HydraLoraLinear


class HydraLoraModel(RoutedModel):
    """The tuner that PEFT builds for a `HydraLoraConfig`."""

    prefix = "hydralora_"
    tuner_layer_cls = HydraLoraLinear
