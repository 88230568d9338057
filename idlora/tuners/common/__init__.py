"""What token-routed adapters of linear layers share: their config's common half, their layer, their model, experts."""

from idlora.tuners.common.config import RoutedConfig
from idlora.tuners.common.experts import ExpertsConfig, ExpertsLayer
from idlora.tuners.common.layer import RoutedLayer, softmax_route
from idlora.tuners.common.mixtures import Mixture, watched_mixtures
from idlora.tuners.common.model import RoutedModel

__all__ = [
    "ExpertsConfig",
    "ExpertsLayer",
    "Mixture",
    "RoutedConfig",
    "RoutedLayer",
    "RoutedModel",
    "softmax_route",
    "watched_mixtures",
]
