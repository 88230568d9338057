"""Base classes of token-routed adapters of linear layers: config, layer, model, experts, routing statistics."""

from idlora.tuners.common.card import Paper
from idlora.tuners.common.config import RoutedConfig, require_positive_integers
from idlora.tuners.common.experts import ExpertsConfig, ExpertsLayer
from idlora.tuners.common.layer import RoutedLayer, full_precision, softmax_route
from idlora.tuners.common.model import RoutedModel
from idlora.tuners.common.offload import awaits_dispatch, loaded, loaded_bias
from idlora.tuners.common.routing_statistics import RoutingStatistics, record_routing

__all__ = [
    "ExpertsConfig", "ExpertsLayer", "Paper", "RoutedConfig", "RoutedLayer", "RoutedModel", "RoutingStatistics",
    "awaits_dispatch", "full_precision", "loaded", "loaded_bias", "record_routing",
    "require_positive_integers", "softmax_route",
]  # fmt: skip
